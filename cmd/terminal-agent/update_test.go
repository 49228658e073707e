package main

import "flag"

// update has tests write what they compare with: go test ./cmd/terminal-agent -run X -update
var update = flag.Bool("update", false, "write what tests compare with, from this run")
