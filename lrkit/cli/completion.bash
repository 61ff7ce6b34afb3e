# Completion of lrkit for bash. Put this line in ~/.bashrc:  eval "$(lrkit completion bash)"
_lrkit() {
    local program=$1 line
    type -P -- "$program" > /dev/null || program=lrkit
    COMPREPLY=()
    while IFS= read -r line; do
        COMPREPLY+=("$line")
    done < <(command -- "$program" complete bash "${COMP_LINE:0:COMP_POINT}" "$COMP_WORDBREAKS" 2> /dev/null)
}
complete -o nospace -F _lrkit lrkit
