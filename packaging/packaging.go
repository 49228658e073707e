// Package packaging holds what the programs are delivered in. The agent carries
// three of its files, for machines that it comes to without a package.
package packaging

import _ "embed"

// SystemdUnit is terminal-agent.service, as the packages install it.
//
//go:embed terminal-agent.service
var SystemdUnit string

// AgentConfig is terminal-agent.toml, the reference configuration.
//
//go:embed terminal-agent.toml
var AgentConfig string

// SystemdUser is terminal-agent.sysusers, which makes the service's user.
//
//go:embed terminal-agent.sysusers
var SystemdUser string
