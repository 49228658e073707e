# What CI does is what `make` does. Everything below needs Go and make only,
# unless it says so.

GO      ?= go
VERSION ?= $(shell packaging/version.sh 2>/dev/null || echo devel)
LDFLAGS  = -s -w -X main.version=$(VERSION)

# The agent has to be small: without inlining it is 7 % smaller, and it waits
# most of the time anyway; without HTTP/2, 3 %: it uploads a file now and then.
SMALL    = -gcflags=all=-l -tags=nethttpomithttp2

# The race detector needs a C compiler; without one the tests run without it.
RACE := $(shell command -v $$($(GO) env CC) >/dev/null 2>&1 && echo -race)

STATICCHECK = $(GO) run honnef.co/go/tools/cmd/staticcheck@v0.8.2
PROGRAMS    = terminal-dispatcher terminal-simulator demo
PLATFORMS   = linux/amd64 linux/arm64 linux/arm windows/amd64

.PHONY: ci build demo up test test-all bench check cross packages try test-windows version clean

ci: check cross test-all demo

# The programs, static, in bin/.
build:
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/ $(PROGRAMS:%=./cmd/%)
	CGO_ENABLED=0 $(GO) build -trimpath $(SMALL) -ldflags '$(LDFLAGS)' -o bin/ ./cmd/terminal-agent

# The main job: all four operations, from the HTTP API to a simulated terminal.
demo: build
	bin/demo

# The same, and it goes on running.
up: build
	bin/demo --keep

test:
	@[ -n "$(RACE)" ] || echo "no C compiler: testing without the race detector"
	$(GO) test $(RACE) -timeout 30m ./...

# With every real component: tests that lack one fail and name it.
test-all:
	TERMINALOPS_TEST_ALL=1 $(GO) test $(RACE) -timeout 30m ./...

# The figures of the README.
bench: build
	$(GO) test -run '^$$' -bench . -benchtime 1x -timeout 20m ./cmd/demo

check:
	@files="$$(gofmt -l .)"; [ -z "$$files" ] || { echo "gofmt would change:"; echo "$$files"; exit 1; }
	$(GO) vet ./...
	GOOS=windows CGO_ENABLED=0 $(GO) vet ./...
	$(STATICCHECK) ./...

# The agent for every platform, at most 10 MB each.
cross:
	@for p in $(PLATFORMS); do \
		out=bin/$$p/terminal-agent; [ $${p%/*} = windows ] && out=$$out.exe; \
		GOOS=$${p%/*} GOARCH=$${p#*/} CGO_ENABLED=0 $(GO) build -trimpath $(SMALL) -ldflags '$(LDFLAGS)' -o $$out ./cmd/terminal-agent || exit 1; \
		size=$$(wc -c < $$out); echo "$$p $$size bytes"; \
		[ $$size -le 10000000 ] || { echo "$$out is larger than 10 MB"; exit 1; }; \
	done

# deb, rpm, tar.gz, zip, MSI, SBOMs and checksums in dist/; packaging/build.sh
# says what else it needs.
packages:
	VERSION='$(VERSION)' packaging/build.sh

# The packages, tried for real: on a booted Debian, in a VM whose plug is pulled,
# under Wine. A script that cannot run here says what is missing.
try: build packages
	@for s in rpm deb windows vm reproducible; do packaging/try/$$s.sh || [ $$? = 77 ] || exit 1; done

# The tests of every package on Windows, which is Wine.
test-windows:
	packaging/try/windows.sh tests

version:
	@echo '$(VERSION)'

clean:
	rm -rf bin dist
