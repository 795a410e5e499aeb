// SPDX-License-Identifier: GPL-2.0-only
/*
 * In the guest: keep a VM open while the tests run.
 *
 * The first VM and the last one patch a static branch in the scheduler. QEMU's
 * multi-threaded TCG does not model cross-modifying code: every few hundred
 * times another CPU still runs the breakpoint that was there for a moment, and
 * the kernel dies of "Oops: int3" in __schedule(). With a VM that stays, the
 * branch is patched once.
 */
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <unistd.h>

int main(void)
{
	int kvm = open("/dev/kvm", O_RDWR);

	if (kvm < 0 || ioctl(kvm, KVM_CREATE_VM, 0) < 0) {
		perror("holdvm: /dev/kvm");
		return 1;
	}
	puts("holdvm: ready");
	fflush(stdout);
	for (;;)
		pause();
}
