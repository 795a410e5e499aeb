# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# make test-tools: the bpftrace tools during a selftest, with our KVM modules and with
# Debian's, which have kprobes only.

verb_test_tools()
{
	local selftest=$BUILD/selftests.x86_64/install/kvm/gpc_clock_test whose rc=0

	root_prepare
	need demo
	modules stock
	selftests x86_64
	for whose in ours base; do
		note "boot svm, kernel stock, KVM of ${whose/ours/the series}"
		root_run "${BOOT_LIMIT:-300}" "$BUILD/root/tools.$whose" "" \
			bash "$TOP/lab/tools/guest.sh" "$selftest" \
			"$([[ $whose = base ]] || modules_dir stock)" || rc=1
	done
	[[ $rc -eq 0 ]] || die "a tool's output is wrong; the outputs are in $BUILD/root/tools.*"
}
