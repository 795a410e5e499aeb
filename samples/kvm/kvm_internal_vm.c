// SPDX-License-Identifier: GPL-2.0-only
/*
 * An internal VM: compute a checksum of memory with code that can do nothing else.
 *
 * The guest may read a page of data and execute a page of code, and has no other
 * memory.  The guest returns the checksum by HVC.  Then the guest tries to store to a page
 * outside of its memory: the store exits to the kernel, and the page does not change.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/bitops.h>
#include <linux/err.h>
#include <linux/gfp.h>
#include <linux/init.h>
#include <linux/io.h>
#include <linux/kvm_internal_vm.h>
#include <linux/module.h>
#include <linux/moduleparam.h>
#include <linux/random.h>
#include <linux/string.h>
#include <linux/time64.h>

asm("	.pushsection .rodata, \"a\"\n"
"	.balign 8\n"
"code_begin:\n"
/* x0: address, x1: bytes. Rotate and add. */
"	mov	x2, #0\n"
"1:	cbz	x1, 2f\n"
"	ldrb	w3, [x0], #1\n"
"	ror	x2, x2, #7\n"
"	add	x2, x2, x3\n"
"	sub	x1, x1, #1\n"
"	b	1b\n"
"2:	mov	x0, x2\n"
"	hvc	#0\n"
"code_stray:\n"
"	str	x1, [x0]\n"
"	hvc	#0\n"
"code_end:\n"
"	.popsection\n");

#define GUEST(name)	extern const char code_##name[]
GUEST(begin);
GUEST(stray);
GUEST(end);

enum { CODE, DATA, OTHER, NR_PAGES };

static bool passed;
module_param(passed, bool, 0444);
MODULE_PARM_DESC(passed, "The guest has done what this example says (read only)");

static u64 sum_on_host(const u8 *data, size_t len)
{
	u64 sum = 0;

	while (len--)
		sum = ror64(sum, 7) + *data++;
	return sum;
}

static int run(struct kvm_vcpu *vcpu, u64 pc, u64 x0, u64 x1, struct kvm_internal_exit *exit)
{
	const struct kvm_internal_regs regs = { .x = { x0, x1 }, .pc = pc };

	return kvm_internal_vcpu_set_regs(vcpu, &regs) ?:
	       kvm_internal_vcpu_run(vcpu, NSEC_PER_SEC, exit);
}

static int use(struct kvm *kvm, void *page[])
{
	u64 code = __pa(page[CODE]), stray = code + (code_stray - code_begin);
	struct kvm_internal_exit exit = {};
	struct kvm_vcpu *vcpu;
	int ret;

	memcpy(page[CODE], code_begin, code_end - code_begin);
	get_random_bytes(page[DATA], PAGE_SIZE);

	ret = kvm_internal_vm_add_range(kvm, code, PAGE_SIZE,
					KVM_INTERNAL_READ | KVM_INTERNAL_EXEC) ?:
	      kvm_internal_vm_add_range(kvm, __pa(page[DATA]), PAGE_SIZE, KVM_INTERNAL_READ);
	if (ret)
		return ret;

	vcpu = kvm_internal_vcpu_create(kvm, 0);
	if (IS_ERR(vcpu))
		return PTR_ERR(vcpu);

	ret = run(vcpu, code, __pa(page[DATA]), PAGE_SIZE, &exit);
	if (ret)
		return ret;
	if (exit.reason != KVM_INTERNAL_EXIT_HVC ||
	    exit.call.args[0] != sum_on_host(page[DATA], PAGE_SIZE))
		return -EIO;
	pr_info("the guest's checksum is right\n");

	ret = run(vcpu, stray, __pa(page[OTHER]), ~0, &exit);
	if (ret)
		return ret;
	if (exit.reason != KVM_INTERNAL_EXIT_MMIO || !exit.mmio.write ||
	    exit.mmio.addr != __pa(page[OTHER]) || memchr_inv(page[OTHER], 0, PAGE_SIZE))
		return -EIO;
	pr_info("the guest's stray store has touched nothing\n");
	passed = true;
	return 0;
}

static int __init internal_vm_init(void)
{
	void *page[NR_PAGES];
	struct kvm *kvm;
	int i, ret = 0;

	for (i = 0; i < NR_PAGES; i++) {
		page[i] = (void *)get_zeroed_page(GFP_KERNEL);
		if (!page[i])
			ret = -ENOMEM;
	}
	if (ret)
		goto free;

	kvm = kvm_internal_vm_create("example");
	ret = PTR_ERR_OR_ZERO(kvm);
	if (!ret) {
		ret = use(kvm, page);
		kvm_internal_vm_destroy(kvm);
	}
free:
	for (i = 0; i < NR_PAGES; i++)
		free_page((unsigned long)page[i]);
	return ret;
}

static void __exit internal_vm_exit(void)
{
}

module_init(internal_vm_init);
module_exit(internal_vm_exit);

MODULE_DESCRIPTION("Example of a VM that the kernel makes for itself");
MODULE_LICENSE("GPL");
