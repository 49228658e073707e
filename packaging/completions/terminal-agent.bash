# bash completion for terminal-agent

_terminal_agent() {
	local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD-1]} words
	local overrides="--config --state-dir --broker-url --broker-username --broker-password-file --log-level --help"
	case $previous in
	--config | --bundle | --capture | --broker-password-file | --ca-file | --cert-file | --key-file)
		mapfile -t COMPREPLY < <(compgen -f -- "$current")
		return
		;;
	--state-dir)
		mapfile -t COMPREPLY < <(compgen -d -- "$current")
		return
		;;
	--log-level)
		mapfile -t COMPREPLY < <(compgen -W "debug info warn error" -- "$current")
		return
		;;
	--broker-url | --broker-username | --terminal-id | --link | --terminal | --limit)
		return
		;;
	esac
	if [ "$COMP_CWORD" -eq 1 ]; then
		words="run config service debug doctor status history operation ports decode version --help"
	elif [ "$COMP_CWORD" -eq 2 ] && [ "${COMP_WORDS[1]}" = config ]; then
		words="init check show"
	elif [ "$COMP_CWORD" -eq 2 ] && [ "${COMP_WORDS[1]}" = service ]; then
		words="install uninstall start stop restart status"
	elif [ "$COMP_CWORD" -eq 2 ] && [ "${COMP_WORDS[1]}" = operation ]; then
		words="run"
	elif [ "$COMP_CWORD" -eq 3 ] && [ "${COMP_WORDS[1]}" = operation ] && [[ $current != -* ]]; then
		words="end_of_day send_logs check_update open_menu"
	elif [ "${COMP_WORDS[1]}" = decode ] && [[ $current != -* ]]; then
		mapfile -t COMPREPLY < <(compgen -f -- "$current")
		return
	else
		case ${COMP_WORDS[1]}:${COMP_WORDS[2]} in
		debug:*) words="$overrides --terminal --capture --plain" ;;
		doctor:*) words="$overrides --json --bundle" ;;
		run:*) words="$overrides --service" ;;
		config:check) words=$overrides ;;
		config:show) words="$overrides --json" ;;
		config:init) words="--terminal-id --broker-url --link --broker-username --broker-password-file --ca-file --cert-file --key-file --state-dir --no-input --config --help" ;;
		service:install) words="--config --help" ;;
		service:* | decode:*) words="--help" ;;
		status:* | ports:*) words="--config --state-dir --json --help" ;;
		history:*) words="--terminal --limit --config --state-dir --json --help" ;;
		operation:run) words="--terminal --follow --config --state-dir --json --help" ;;
		esac
	fi
	mapfile -t COMPREPLY < <(compgen -W "${words-}" -- "$current")
}

complete -F _terminal_agent terminal-agent
