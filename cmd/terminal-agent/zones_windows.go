package main

import _ "time/tzdata" // Windows has no zone names of its own; Linux has them in the package tzdata
