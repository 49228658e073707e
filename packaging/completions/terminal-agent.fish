# fish completion for terminal-agent

set -l none "not __fish_seen_subcommand_from run config service version"
set -l init "__fish_seen_subcommand_from config; and __fish_seen_subcommand_from init"
set -l run "__fish_seen_subcommand_from run"

complete -c terminal-agent -f
complete -c terminal-agent -n "$none" -a run -d "serve until interrupted"
complete -c terminal-agent -n "$none" -a config -d "write or check a configuration"
complete -c terminal-agent -n "$none" -a service -d "install and control the service"
complete -c terminal-agent -n "$none" -a version -d "print the version"
complete -c terminal-agent -n "__fish_seen_subcommand_from config; and not __fish_seen_subcommand_from init check" -a "init check"
complete -c terminal-agent -n "__fish_seen_subcommand_from service; and not __fish_seen_subcommand_from install uninstall start stop restart status" -a "install uninstall start stop restart status"

complete -c terminal-agent -l help -d "tell more"
complete -c terminal-agent -n "__fish_seen_subcommand_from run config service" -l config -r -F -d "configuration file"
complete -c terminal-agent -n "$run" -l service -d "run under a service manager"
complete -c terminal-agent -n "$run" -l state-dir -x -a "(__fish_complete_directories)" -d "directory for the journal"
complete -c terminal-agent -n "$run" -l log-level -x -a "debug info warn error" -d "what is logged"
complete -c terminal-agent -n "$run; or $init" -l broker-url -x -d "URL of the broker"
complete -c terminal-agent -n "$run; or $init" -l broker-username -x -d "name at the broker"
complete -c terminal-agent -n "$run; or $init" -l broker-password-file -r -F -d "file that holds the password"
complete -c terminal-agent -n "$init" -l terminal-id -x -d "id of the terminal"
complete -c terminal-agent -n "$init" -l link -x -d "where the terminal is"
complete -c terminal-agent -n "$init" -l ca-file -r -F -d "authority of the broker"
complete -c terminal-agent -n "$init" -l cert-file -r -F -d "certificate of the agent"
complete -c terminal-agent -n "$init" -l key-file -r -F -d "key of the agent"
