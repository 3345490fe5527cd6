#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# make selftests: every test once with C, once with the engine.  Tests whose verdicts differ are
# run again on both sides when all are through, so that an emulator's whim (some tests measure
# time) is told from a difference: until most runs of both sides agree, six times at most.
#
# Prints, per run:  @@verdict <test> <c|engine> <pass|fail|skip|timeout> <ms>
# /selftests/list names the tests, /selftests/limit has the seconds that each may take.

limit=$(cat /selftests/limit)
parameter=/sys/module/kvm_msr/parameters/enable

milliseconds() {
	read -r up _ </proc/uptime
	echo $((${up%.*} * 1000 + 10 * (1${up#*.} - 100)))
}

# run TEST SIDE: sets verdict.
run() {
	case $2 in
	c) [ ! -e $parameter ] || echo N >$parameter ;;
	engine) [ ! -e $parameter ] || echo Y >$parameter ;;
	esac
	start=$(milliseconds)
	cd /tmp || exit
	timeout -s KILL "$limit" "/selftests/$1" >/tmp/output 2>&1
	code=$?
	spent=$(($(milliseconds) - start))
	case $code in
	0) verdict=pass ;;
	4) verdict=skip ;;
	124 | 137 | 143) verdict=timeout ;;
	*) verdict=fail ;;
	esac
	echo "@@verdict $1 $2 $verdict $spent"
	case $verdict in
	fail | timeout)
		# C's failures are shown, and the engine's where C had none.
		if [ "$2" = c ] || [ "$first" != "$verdict" ]; then
			echo "    $1 on $2: $verdict (exit code $code)"
			grep -v 'addr2line: not found' /tmp/output | tail -n 5 | cut -c1-160 |
				sed 's/^/    | /'
		fi
		# What it may have left behind.
		killall -q -9 "${1##*/}"
		;;
	esac
}

# most VERDICTS: the one there is most of.
most() {
	echo "$1" | tr ' ' '\n' | sort | uniq -c | sort -rn | sed -n '1s/.* //p'
}

while read -r test; do
	first=
	run "$test" c
	first=$verdict
	run "$test" engine
	[ "$first" = "$verdict" ] || echo "$test $first $verdict" >>/tmp/differing
done </selftests/list

[ -e /tmp/differing ] || exit 0
while read -r test c engine; do
	for _ in 1 2 3 4 5 6; do
		first=
		run "$test" c
		first=$verdict
		c="$c $verdict"
		run "$test" engine
		engine="$engine $verdict"
		[ "$(most "$c")" != "$(most "$engine")" ] || break
	done
done </tmp/differing
