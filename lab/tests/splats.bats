#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-only
# shellcheck disable=SC2016
# Kernel splats on the console, and what of them is let through.
load helper

setup()
{
	lab_setup_bare
	: >"$TMP/allow"
}

# What is shown of a splat is what lists it.
list_allowed()
{
	allowed_block >"$TMP/console"
	splats vmx
	printf '# why\n\nvmx\t%s\n' "$output" >"$TMP/allow"
}

# splats PLATFORM: those of the console
splats()
{
	run lab 'splats "$@"' "$1" "$TMP/console" "$TMP/allow"
	assert_success
}

# all_seen: each line of standard input is a splat, on a console by itself
all_seen()
{
	local line n=0

	while IFS= read -r line; do
		n=$((n + 1))
		printf '%s\r\n' "$line" >"$TMP/console.$n"
		printf '[[ -n $(splats svm %s %s) ]] || echo %q\n' "$TMP/console.$n" "$TMP/allow" "$line"
	done >"$TMP/script"
	run lab "$(cat "$TMP/script")"
	assert_equal "$output" ""
}

# The WARNING of Bochs' boot, as it comes.
allowed_block()
{
	cat <<-'END'
	[    0.104219] ------------[ cut here ]------------
	[    0.105219] WARNING: CPU: 0 PID: 0 at arch/x86/kernel/cpu/topology_common.c:126 parse_topology+0x1a2/0x260
	[    0.106219] Modules linked in:
	[    0.107219] CPU: 0 UID: 0 PID: 0 Comm: swapper Not tainted 6.12.117+deb12-rt-amd64 #1  Debian 6.12.117-1
	[    0.108219] RIP: 0010:parse_topology+0x1a2/0x260
	[    0.109219] Call Trace:
	[    0.110219]  <TASK>
	[    0.111219]  ? __warn.cold+0x93/0xed
	[    0.112219]  ? report_bug+0xe6/0x170
	[    0.113219]  early_cpu_init+0x1b/0x30
	[    0.114219]  </TASK>
	END
	[[ ${1-} = open ]] || echo '[    0.115219] ---[ end trace 0000000000000000 ]---'
}

@test "splats: each class is seen" {
	all_seen <<-'END'
	[   12.345678] WARNING: CPU: 1 PID: 234 at virt/kvm/pfncache.c:123 kvm_gpc_refresh+0x1f/0x40 [kvm]
	[   12.345678] kernel BUG at virt/kvm/pfncache.c:123!
	[   12.345678] BUG: kernel NULL pointer dereference, address: 0000000000000008
	[   12.345678] BUG: unable to handle page fault for address: ffffc90000123000
	[   12.345678] BUG: sleeping function called from invalid context at kernel/locking/mutex.c:585
	[   12.345678] BUG: scheduling while atomic: gpc_clock_test/234/0x00000002
	[   12.345678] BUG: Bad page map in process gpc_clock_test  pte:8000000012345025 pmd:12345067
	[   12.345678] BUG: Bad page state in process gpc_clock_test  pfn:12345
	[   12.345678] BUG: Bad rss-counter state mm:00000000deadbeef type:MM_ANONPAGES val:1
	[   12.345678] BUG: workqueue lockup - pool cpus=0 node=0 flags=0x0 nice=0 stuck for 31s!
	[   12.345678] BUG: spinlock bad magic on CPU#0, gpc_clock_test/234
	[   12.345678] Oops: 0002 [#1] PREEMPT SMP NOPTI
	[   12.345678] Oops: general protection fault, probably for non-canonical address 0xdead000000000100: 0000 [#1]
	[   12.345678] Kernel panic - not syncing: Fatal exception
	[   12.345678] WARNING: possible recursive locking detected
	[   12.345678] WARNING: possible circular locking dependency detected
	[   12.345678] WARNING: possible irq lock inversion dependency detected
	[   12.345678] WARNING: inconsistent lock state
	[   12.345678] WARNING: suspicious RCU usage
	[   12.345678] WARNING: bad unlock balance detected!
	[   12.345678] [ BUG: Invalid wait context ]
	[   12.345678] WARNING: held lock freed!
	[   12.345678] WARNING: lock held when returning to user space!
	[   12.345678] BUG: KASAN: slab-use-after-free in kvm_gpc_check+0x4a/0x60 [kvm]
	[   12.345678] BUG: KASAN: vmalloc-out-of-bounds in kvm_setup_guest_pvclock+0x1d2/0x260 [kvm]
	[   12.345678] BUG: KCSAN: data-race in gpc_invalidate+0x8a/0x100 / kvm_gpc_check+0x1f/0x40
	[   12.345678] BUG: KFENCE: use-after-free read in kvm_gpc_check+0x4a/0x60 [kvm]
	[   12.345678] UBSAN: shift-out-of-bounds in virt/kvm/pfncache.c:123:45
	[   12.345678] kmemleak: 3 new suspected memory leaks (see /sys/kernel/debug/kmemleak)
	[  242.345678] INFO: task gpc_clock_test:234 blocked for more than 120 seconds.
	[  242.345678] rcu: INFO: rcu_preempt self-detected stall on CPU
	[  242.345678] rcu: INFO: rcu_preempt detected stalls on CPUs/tasks: { 1-...!: (0 ticks this GP) idle=2c94/0/0x0 }
	[  242.345678] rcu: INFO: rcu_preempt detected expedited stalls on CPUs/tasks: { 1-... } 21 jiffies s: 57 root: 0x2/.
	[   62.345678] watchdog: BUG: soft lockup - CPU#1 stuck for 26s! [gpc_clock_test:234]
	[   62.345678] watchdog: Watchdog detected hard LOCKUP on cpu 1
	[   12.345678] refcount_t: underflow; use-after-free.
	[   12.345678] list_add corruption. next->prev should be prev (ffff888012345678), but was 0000000000000000.
	[   12.345678] list_del corruption, ffff888012345678->next is LIST_POISON1 (dead000000000100)
	[   12.345678] gpc_clock_test: page allocation failure: order:0, mode:0xcc0(GFP_KERNEL), nodemask=(null),cpuset=/
	[   12.345678] Unable to handle kernel paging request at virtual address ffff800081234000
	[   12.345678] Internal error: Oops: 0000000096000047 [#1] PREEMPT SMP
	[   12.345678] Kernel panic - not syncing: HYP panic:
	[   12.345678] ODEBUG: free active (active state 0) object: ffff888012345678 object type: timer_list hint: process_timeout+0x0/0x20
	[   12.345678] kmem_cache_destroy kvm_vcpu: Slab cache still has objects when called from kvm_x86_vendor_exit+0x3a/0x60 [kvm]
	lab: cannot load kvm-amd
	lab: no results channel /dev/ttyS1
	lab: time limit of 900 s reached
	END
}

@test "splats: what SLUB's checks find is seen" {
	all_seen <<-'END'
	[   12.345678] BUG kmalloc-64 (Not tainted): Right Redzone overwritten
	[   12.345678] BUG kvm_vcpu (Tainted: G           OE     ): Objects remaining in kvm_vcpu on __kmem_cache_shutdown()
	[   12.345678] BUG kmalloc-rnd-04-64 (Tainted: G           OE     ): Poison overwritten
	END
}

@test "splats: a lock that nobody initialised is seen" {
	all_seen <<<'[   12.345678] INFO: trying to register non-static key.'
}

@test "splats: a clean console has none" {
	printf '%s\r\n' '[    0.044000] tsc: Unable to calibrate against PIT' \
		'[    2.953843] kvm: loading out-of-tree module taints kernel.' \
		'[   13.419991] reboot: Power down' >"$TMP/console"
	splats svm
	assert_equal "$output" ""
}

@test "splats: ordinary lines are none" {
	cat >"$TMP/console" <<-'END'
	[    0.000000] Linux version 6.12.117+deb12-amd64 (debian-kernel@lists.debian.org) (gcc-12 (Debian 12.2.0-14+deb12u1) 12.2.0) #1 SMP PREEMPT_DYNAMIC
	[    0.000000] Command line: console=ttyS0 panic=-1 oops=panic loglevel=5 tsc=reliable clocksource=tsc
	[    0.000000] [Firmware Bug]: CPU 0: APIC ID mismatch. CPUID: 0x0001 APIC: 0x0000
	[    0.033000] Debug: sleeping in the sun
	[    0.033000] ** or other debugging: this line only mentions a warning **
	[    0.044000] tsc: Unable to calibrate against PIT
	[    0.050000] rcu: Preemptible hierarchical RCU implementation.
	[    0.050001] rcu: 	RCU lockdep checking is enabled.
	[    0.060000] Lock dependency validator: Copyright (c) 2006 Red Hat, Inc., Ingo Molnar
	[    0.070000] kfence: initialized - using 2097152 bytes for 255 objects at 0x(____ptrval____)-0x(____ptrval____)
	[    0.080000] kasan: KernelAddressSanitizer initialized
	[    0.090000] kcsan: enabled early
	[    0.667573] mtrr: your CPUs had inconsistent fixed MTRR settings
	[    0.668117] mtrr: your CPUs had inconsistent variable MTRR settings
	[    0.858173] acpi PNP0A03:00: fail to add MMCONFIG information, can't access extended configuration space under this bridge
	[    1.493194] amd_pstate: the _CPC object is not present in SBIOS or ACPI disabled
	[    2.953843] kvm: loading out-of-tree module taints kernel.
	[    2.953844] kvm: module verification failed: signature and/or required key missing - tainting kernel
	[    3.779202] kselftest: Running tests in kvm
	[    4.000000] clocksource: timekeeping watchdog on CPU1: Marking clocksource 'tsc' as unstable because the skew is too large:
	[    5.000000] gpc_clock_test (234): drop_caches: 3
	[    6.000000] x86/split lock detection: #AC: crashing the kernel on kernel split_locks and warning on user-space split_locks
	[   13.419991] reboot: Power down
	END
	splats svm
	assert_equal "$output" ""
}

@test "splats: kmemleak's greeting is none" {
	cat >"$TMP/console" <<<'[    0.090000] kmemleak: Kernel memory leak detector initialized (mem pool available: 15679)'
	splats svm
	assert_equal "$output" ""
}

@test "splats: the line is shown without stamp, CPU, PID and line end" {
	printf '[   12.345678] WARNING: CPU: 1 PID: 234 at virt/kvm/pfncache.c:123 kvm_gpc_refresh+0x1f/0x40 [kvm]\r\n' >"$TMP/console"
	splats svm
	assert_equal "${#lines[@]}" 1
	assert_output --partial "WARNING: at virt/kvm/pfncache.c:123 kvm_gpc_refresh"
}

@test "splats: the line is shown as 7.3 writes it without CPU and process" {
	echo '[   12.345678] WARNING: virt/kvm/pfncache.c:12 at gpc_x+0x1/0x4, CPU#1: a/b c/234' >"$TMP/console"
	splats svm
	assert_output "WARNING: virt/kvm/pfncache.c:12 at gpc_x"
}

@test "splats: what is listed for the platform is let through" {
	list_allowed
	allowed_block | sed 's/$/\r/' >"$TMP/console"
	splats vmx
	assert_equal "$output" ""
}

@test "splats: what is listed is let through with a caller in the stamp" {
	list_allowed
	allowed_block | sed 's/^\(\[ *[0-9.]*\]\)/\1[    C0]/' >"$TMP/console"
	splats vmx
	assert_equal "$output" ""
	allowed_block | sed 's/^\(\[ *[0-9.]*\]\)/\1[  T117]/' >"$TMP/console"
	splats vmx
	assert_equal "$output" ""
}

@test "splats: what is listed is let through on another CPU, of another build" {
	list_allowed
	allowed_block | sed 's/CPU: 0 PID: 0 /CPU: 1 PID: 1234 /; s/^\[    0/[12340/' >"$TMP/console"
	splats vmx
	assert_equal "$output" ""
}

@test "splats: what is listed for one platform is a splat on another" {
	list_allowed
	allowed_block >"$TMP/console"
	splats svm
	assert_output --partial topology_common.c:126
}

@test "splats: what differs from the listed text is a splat" {
	list_allowed
	allowed_block | sed 's/:126 /:127 /' >"$TMP/console"
	splats vmx
	assert_output --partial topology_common.c:127
	allowed_block | sed 's/ parse_topology/ parse_topology_amd/' >"$TMP/console"
	splats vmx
	assert_output --partial parse_topology_amd
}

@test "splats: one after the listed one is seen" {
	list_allowed
	{ allowed_block; echo '[    9.000000] BUG: Bad page state in process gpc_clock_test  pfn:12345'; } >"$TMP/console"
	splats vmx
	assert_equal "$output" "BUG: Bad page state in process gpc_clock_test  pfn:12345"
}

@test "splats: a second WARNING after the listed one is seen" {
	list_allowed
	{ allowed_block; allowed_block | sed 's/arch.*/virt\/kvm\/pfncache.c:123 kvm_gpc_refresh+0x1f\/0x40 [kvm]/'; } >"$TMP/console"
	splats vmx
	assert_equal "${#lines[@]}" 1
	assert_output --partial "WARNING: at virt/kvm/pfncache.c:123 kvm_gpc_refresh"
}

@test "splats: one amid the listed one's trace is seen" {
	list_allowed
	allowed_block | sed 's/^.*report_bug.*/[    0.1] BUG: KASAN: slab-out-of-bounds in kvm_gpc_check+0x4a\/0x60 [kvm]/' >"$TMP/console"
	splats vmx
	assert_equal "${#lines[@]}" 1
	assert_output --partial "BUG: KASAN: slab-out-of-bounds in kvm_gpc_check"
}

@test "splats: after a listed one whose trace does not end, all are seen" {
	list_allowed
	{
		allowed_block open
		echo '[    9.000000] Kernel panic - not syncing: Fatal exception'
		echo 'lab: time limit of 900 s reached'
	} >"$TMP/console"
	splats vmx
	assert_output --partial 'Kernel panic'
	assert_output --partial 'lab: time limit'
}

@test "splats: the list that there is names a platform, a tab, a splat" {
	run bash -c 'grep -vE "^(#|$)" "$1" | tee "$2/allow" | cut -f 2- >"$2/console"' - "$TOP/lab/known/splats.allow" "$TMP"
	: >"$TMP/none"
	assert_equal "$(grep -cvE '^(svm|vmx|vhe|nvhe)	' "$TMP/allow")" 0
	run lab 'splats svm "$1/console" "$1/none" | diff "$1/console" -' "$TMP"
	assert_equal "$output" ""
}

@test "splats: the demo's guest finds them, too, without the lab's variables" {
	echo '[    1.000000] WARNING: CPU: 0 PID: 1 at mm/slab.c:1 kfree+0x1/0x2' >"$TMP/console"
	run env -u TOP -u BUILD bash -euc '. "$1/lab/run/results.sh"; splats svm "$2"' - "$TOP" "$TMP/console"
	assert_success
	assert_output 'WARNING: at mm/slab.c:1 kfree'
}
