// SPDX-License-Identifier: GPL-2.0-only
/*
 * In the guest: keep VMs open while the tests run.
 *
 * The first VM and the last one patch a static branch in the scheduler. The first
 * and last vCPU without an APIC, or with one that is off, patch some more in KVM.
 * QEMU's multi-threaded TCG does not model cross-modifying code: every few hundred
 * times another CPU still runs the temporary breakpoint, and the kernel dies of
 * "Oops: int3" in __schedule(). These VMs are made while there is only one CPU, and
 * keep the branches unchanged.
 */
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

static int try(const char *what, int fd)
{
	if (fd < 0) {
		perror(what);
		exit(1);
	}
	return fd;
}

int main(void)
{
	int kvm = try("/dev/kvm", open("/dev/kvm", O_RDWR));
	int bare = try("KVM_CREATE_VM", ioctl(kvm, KVM_CREATE_VM, 0));
	int apic = try("KVM_CREATE_VM", ioctl(kvm, KVM_CREATE_VM, 0));

	try("KVM_CREATE_VCPU", ioctl(bare, KVM_CREATE_VCPU, 0));
	try("KVM_CREATE_IRQCHIP", ioctl(apic, KVM_CREATE_IRQCHIP, 0));
	try("KVM_CREATE_VCPU", ioctl(apic, KVM_CREATE_VCPU, 0));

	puts("ready");
	fflush(stdout);
	fclose(stdout);
	for (;;)
		pause();
}
