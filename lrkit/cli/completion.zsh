#compdef lrkit
# Completion of lrkit for zsh. Put this line in ~/.zshrc, after compinit:  eval "$(lrkit completion zsh)"
_lrkit() {
    local line word program=${(Q)words[1]} width=0
    local -a lines open closed open_lines closed_lines
    whence -p -- "$program" > /dev/null || program=lrkit
    lines=("${(@f)$(command -- "$program" complete zsh "${(@)words[2,CURRENT-1]}" "$PREFIX" 2> /dev/null)}")
    for line in "${(@)lines}"; do
        word=${line%%$'\t'*}
        (( ${#word} > width )) && width=${#word}
    done
    for line in "${(@)lines}"; do
        word=${line%%$'\t'*}
        [[ -n $word ]] || continue
        line="${(r:width:)word}${${line#*$'\t'}:+  ${line#*$'\t'}}"
        if [[ $word == *' ' ]]; then
            closed+=("${word% }") closed_lines+=("$line")
        else
            open+=("$word") open_lines+=("$line")
        fi
    done
    (( $#open )) && compadd -l -S '' -d open_lines -a open
    (( $#closed )) && compadd -l -d closed_lines -a closed
    (( $#open + $#closed ))
}
if [[ ${funcstack[1]} == _lrkit ]]; then
    _lrkit "$@"
elif (( $+functions[compdef] )); then
    compdef _lrkit lrkit
fi
