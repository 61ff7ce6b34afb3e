# Completion of lrkit for fish:  lrkit completion fish > ~/.config/fish/completions/lrkit.fish
function __lrkit_complete
    set -l words (commandline -opc)
    set -l current (commandline -ct)
    set -l program $words[1]
    set -e words[1]
    command -q -- $program; or set program lrkit
    command $program complete fish $words "$current" 2>/dev/null
end
complete -c lrkit -f -a '(__lrkit_complete)'
