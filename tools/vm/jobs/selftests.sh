#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# make selftests: runs every test once with C and once with the engine.  Some tests measure time, and
# are flaky in an emulator.  So tests whose verdicts differ run again at the end, until the most
# frequent verdicts of both sides agree, but at most six times.
#
# Prints @@start <test> <side> before each run, @@verdict <test> <side> <verdict> <ms> after it,
# and @@tick every second, to show that the machine is alive.  /selftests/list has a line for
# each test: its name and the sides to run it on.  /selftests/again has a line for each test whose
# verdicts differed in an earlier boot: its name and both verdicts.  /selftests/limit is the time
# limit per test, in seconds.

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
	echo "@@start $1 $2"
	# Let the serial port send this line: it needs interrupts, which a test may stop.
	usleep 100000
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
		# Show C's failures, and the engine's failures that C does not have.
		if [ "$2" = c ] || [ "$first" != "$verdict" ]; then
			echo "    $1 on $2: $verdict (exit code $code)"
			grep -v 'addr2line: not found' /tmp/output | tail -n 5 | cut -c1-160 |
				sed 's/^/    | /'
		fi
		# End child processes that it may have left.
		killall -q -9 "${1##*/}"
		;;
	esac
}

# most VERDICTS: prints the most frequent verdict.
most() {
	echo "$1" | tr ' ' '\n' | sort | uniq -c | sort -rn | sed -n '1s/.* //p'
}

while sleep 1; do
	echo @@tick
done &

cp /selftests/again /tmp/differing
while read -r test sides; do
	first=
	for side in $sides; do
		run "$test" "$side"
		[ -z "$first" ] || [ "$first" = "$verdict" ] || echo "$test $first $verdict" >>/tmp/differing
		first=$verdict
	done
done </selftests/list

while read -r test c engine; do
	# Two runs at a time, so that the number of runs stays odd.
	for _ in 1 2 3; do
		for _ in 1 2; do
			first=
			run "$test" c
			first=$verdict
			c="$c $verdict"
			run "$test" engine
			engine="$engine $verdict"
		done
		[ "$(most "$c")" != "$(most "$engine")" ] || break
	done
done </tmp/differing
