#!/usr/bin/env bash
# Power cuts. The Debian package in an emulated PC with a disk and two serial
# ports of its own; the cloud and the terminals stay outside of it, and survive.
# An end of day is asked for, the PC loses its power at a certain moment (QEMU is
# killed), is switched on again, and the operation must end as the terminal's own
# log says: closed once, with those totals. See lib.sh for how to run it.
#
#	outside                                   QEMU: Debian 12, 16550 ports
#	terminal-dispatcher  127.0.0.1:1883  <---  10.0.2.2:1883  terminal-agent
#	terminal-simulator   a pseudo terminal --> /dev/ttyS1     P...-T0001
#	terminal-simulator   a pseudo terminal --> /dev/ttyS2     P...-T0002
#
#	CUTS   how many, default 3; there are 6 moments
#
# What is gone with the power is what the guest has not synced. A small service
# in the guest shows that it is: it writes numbers into two files, syncs one of
# them, and says at the next boot how far each of them goes.
#
# An emulated PC takes half a minute to boot, so the cloud's windows are longer
# than by default.

source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

CUTS=${CUTS:-3}
pc= # QEMU, while it runs
boots=0

# Moments of an end of day: a name, what the terminal says then, and who is
# beforehand kept from hearing of it.
moments=(
	"while the terminal closes its day|^-> .*waiting for the host"
	"when the totals have left the terminal|^-> status information"
	"when all is done and the cloud has not heard of it|^-> completion\$"
	"when the terminal has heard the command|^<- end-of-day"
	"when the batch is closed|^closed the batch"
	"before the terminal was asked|^<- registration"
)
unheard=2 # the moment at which the cloud does not listen

# --- the PC ---

build_pc() {
	local root=$work/root unit
	chapter "A PC with a disk of its own"
	over_debian "$root"
	cp "$(the_deb)" "$root/this.deb"
	in_root dpkg -i /this.deb 2>&1 | quote
	in_root terminal-agent config init --terminal-id "$account-T0001" --broker-url tcp://10.0.2.2:1883 --link serial:/dev/ttyS1 | quote
	# After a crash it hears a terminal out for so long; three minutes by default.
	sed -i 's/^#t4 .*/t4 = "60s"/' "$root/etc/terminal-agent/terminal-agent.toml"
	sed -n '/^\[\[terminal\]\]/,$p' "$root/etc/terminal-agent/terminal-agent.toml" | sed 's/T0001/T0002/; s/ttyS1/ttyS2/' >"$work/second"
	cat "$work/second" >>"$root/etc/terminal-agent/terminal-agent.toml"
	in_root terminal-agent config check | quote
	expect "terminals heard out for 60 s" 2 "$(grep -c '^t4 = "60s"' "$root/etc/terminal-agent/terminal-agent.toml")"
	echo '/dev/vda / ext4 defaults 0 1' >"$root/etc/fstab"
	# What a till needs and this does not, and what would load slow modules.
	for unit in apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service fstrim.timer \
		systemd-timesyncd.service systemd-logind.service getty.target modprobe@{configfs,dm_mod,drm,fuse,loop}.service; do
		ln -sf /dev/null "$root/etc/systemd/system/$unit"
	done
	add_unit "$root" lan 'modprobe virtio_net && ip link set eth0 up && ip address add 10.0.2.15/24 dev eth0'
	add_unit "$root" told 'exec journalctl --follow --no-tail --boot --unit=terminal-agent --output=cat >/dev/ttyS0'
	add_unit "$root" control "$(control)"
	add_unit "$root" lines "$(lines)" "Before=terminal-agent.service" "Type=oneshot"
	cp "$root"/boot/vmlinuz-* "$work/vmlinuz"
	cp "$root"/boot/initrd.img-* "$work/initrd"
	mke2fs -q -F -t ext4 -d "$root" "$work/disk" 2G >/dev/null
	say "its disk: $(du -m "$work/disk" | cut -f1) MB"
}

in_root() { chroot "$root" "$@"; }

# add_unit ROOT NAME SCRIPT [UNIT-LINE SERVICE-LINE]: started at boot.
add_unit() {
	printf '%s\n' "$3" >"$1/usr/local/sbin/$2"
	printf '[Unit]\n%s\n[Service]\nExecStart=/bin/sh /usr/local/sbin/%s\n%s\n' "${4:-}" "$2" "${5:-}" >"$1/etc/systemd/system/$2.service"
	ln -s "../$2.service" "$1/etc/systemd/system/multi-user.target.wants/"
}

# control prints the script of the service that shows what a cut does. It says
# "written N" only when the file that is synced has N.
control() {
	cat <<-'EOF'
		exec >/dev/ttyS0
		cd /var/lib
		[ ! -e unsynced ] || echo "there: unsynced $(tr -d '\0' <unsynced | wc -l), synced $(tr -d '\0' <synced | wc -l)"
		rm -f unsynced synced
		sync
		for n in $(seq 10000); do
			echo $n >>unsynced
			echo $n >>synced
			sync synced
			echo "written $n"
			sleep 0.5
		done
	EOF
}

# lines prints the script that empties the serial lines before the agent starts:
# what a terminal has said to a PC that is off is lost, but here it would wait.
lines() {
	cat <<-'EOF'
		for port in /dev/ttyS1 /dev/ttyS2; do
			stty -F $port raw -echo 9600
			timeout 0.5 cat $port >/dev/null &
		done
		wait
	EOF
}

switch_on_pc() {
	boots=$((boots + 1))
	console=$work/console.$boots
	qemu-system-x86_64 -accel tcg,thread=multi -smp 2 -m 512 -nodefaults -no-user-config -display none -no-reboot \
		-kernel "$work/vmlinuz" -initrd "$work/initrd" \
		-append "root=/dev/vda rw quiet console=ttyS0,115200 net.ifnames=0 module_blacklist=cfg80211,floppy,kvm,kvm_amd,kvm_intel,ccp,psmouse,pcspkr,ata_piix" \
		-drive "file=$work/disk,if=virtio,format=raw,cache=writeback" \
		-netdev user,id=lan -device virtio-net,netdev=lan,romfile= \
		-serial "file:$console" \
		-chardev "serial,id=t1,path=$(port_of "$account-T0001")" -serial chardev:t1 \
		-chardev "serial,id=t2,path=$(port_of "$account-T0002")" -serial chardev:t2 \
		</dev/null >"$work/qemu.log" 2>&1 &
	pc=$!
	await 400 "the PC is on; the service has started by itself" grep -aq "^connected .*connection=" "$console"
}

cut_power() {
	kill -KILL "$pc"
	wait "$pc" 2>/dev/null || true
	pc=
}

on_failure() {
	say "the end of the PC's console:"
	tail -n 20 "${console:-/dev/null}" | quote
	tail -n 5 "$work/qemu.log" | quote
	say "the end of the cloud's log:"
	tail -n 10 "$work/dispatcher.log" | quote
	say "what the terminals said last:"
	tail -n 15 "$work"/terminals/*/says | quote
}

# --- the story ---

# cut_number N: the N-th cut. The terminals take turns: the one that is not asked is
# exchanged while the PC is off, so that each has a full batch when its turn
# comes.
cut_number() {
	local moment=$((($1 - 1) % ${#moments[@]})) terminal=$account-T000$((($1 - 1) % 2 + 1)) next=$account-T000$(($1 % 2 + 1)) name pattern before
	name=${moments[moment]%%|*} pattern=${moments[moment]#*|}
	chapter "Cut $1: $name"
	ask_end_of_day "$terminal"
	if [ "$moment" = "$unheard" ]; then
		await_terminal "$terminal" "^<- end-of-day"
		kill -STOP "$cloud"
	fi
	await_terminal "$terminal" "$pattern"
	[ "$moment" != "$unheard" ] || await 180 "the agent has finished" grep -aq "^finished .*$operation" "$console"
	cut_power
	say "the power is off; closed by then: $(closings "$work/terminals/$terminal/log")"
	[ "$moment" != "$unheard" ] || kill -CONT "$cloud"
	expect "the cloud says" PENDING "$(call "/$operation" | jq -r .status)"
	switch_on "$next"
	before=$console
	switch_on_pc
	expect_closed "$terminal" 300 1
	await 180 "the PC has told the story" grep -aq "^finished .*$operation" "$before" "$console"
	{ grep -ah "$operation" "$before" || true; } | tr -d '\r' | sed 's/^/before: /' | quote
	{ grep -ah "$operation" "$console" || true; } | tr -d '\r' | sed 's/^/after:  /' | quote
	await 180 "the control has spoken" grep -aq "^there:" "$console"
	say "control: $(grep -ac '^written' "$before") numbers written before the cut; $(grep -am1 '^there:' "$console" | tr -d '\r')"
}

inside() {
	local n
	pardoned='"no answer to ' # by a PC whose power is off
	start_cloud "$account-T0001" "$account-T0002"
	build_pc
	switch_on "$account-T0001"
	switch_on "$account-T0002"
	switch_on_pc
	for n in $(seq "$CUTS"); do cut_number "$n"; done
	summary
}

outside() {
	need_root
	need qemu-system-x86_64 qemu-system-x86 mmdebstrap mmdebstrap mke2fs e2fsprogs \
		unshare util-linux ip iproute2 curl curl jq jq
	need_programs
	the_deb >/dev/null
	debian >/dev/null
	try_in_own_world "${BASH_SOURCE[0]}" inside
}

"${1:-outside}"
