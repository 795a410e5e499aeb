// SPDX-License-Identifier: GPL-2.0-only
/*
 * The first process of the demo's nested guest: is its memory right, does its clock stay
 * monotonic?
 *
 * The first half of the memory is one page again and again, for the host's KSM.  A round
 * checks all pages, reads the clock at each of them, and writes every 16th page anew.  A
 * line on the console tells the state now and then.  A line from the console ends it:
 *
 *	ROUNDS rounds of PAGES pages, WRONG wrong, BACK back, longest MS ms
 *
 * WRONG counts pages with other contents than were written, BACK reads of the clock behind
 * the one before.
 */
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/klog.h>
#include <sys/mman.h>
#include <sys/reboot.h>
#include <sys/utsname.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#define PAGES	4096
#define WORDS	(4096 / sizeof(uint64_t))
#define TURNS	16	/* a page is written once in so many rounds */
#define TELL	32	/* rounds from line to line */
#define PAUSE	5	/* ms; 16 times as long, see init */

typedef uint64_t page_t[WORDS];

static page_t *pages;
static unsigned long rounds, wrong, back, longest;
static uint64_t last;

static uint64_t now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000ull + ts.tv_nsec;
}

static void read_clock(void)
{
	uint64_t t = now();

	back += t < last;
	last = t;
}

/* The first word of @page as of @round, the others count on from there. */
static uint64_t first_word(unsigned long page, unsigned long round)
{
	unsigned long written = round - (round - page) % TURNS;

	if (page < PAGES / 2)
		return 1ull << 63;
	return (uint64_t)page << 32 | (written > round ? 0 : written);
}

static void write_page(unsigned long page, unsigned long round)
{
	uint64_t first = first_word(page, round);

	for (unsigned int i = 0; i < WORDS; i++)
		pages[page][i] = first + i;
}

static void check_page(unsigned long page, unsigned long round)
{
	uint64_t first = first_word(page, round);

	for (unsigned int i = 0; i < WORDS; i++) {
		if (pages[page][i] != first + i) {
			wrong++;
			break;
		}
	}
}

static void do_round(void)
{
	uint64_t start = now(), took;

	for (unsigned long page = 0; page < PAGES; page++) {
		check_page(page, rounds);
		read_clock();
	}
	rounds++;
	for (unsigned long page = rounds % TURNS; page < PAGES; page += TURNS)
		write_page(page, rounds);

	took = (now() - start) / 1000000;
	if (took > longest)
		longest = took;
}

static void tell(void)
{
	printf("%lu rounds of %d pages, %lu wrong, %lu back, longest %lu ms\n",
	       rounds, PAGES, wrong, back, longest);
}

int main(void)
{
	struct pollfd input = { .fd = STDIN_FILENO, .events = POLLIN };
	struct utsname system;

	setlinebuf(stdout);
	klogctl(8, NULL, 5);	/* show warnings, too */
	uname(&system);
	printf("booted: Linux %s\n", system.release);

	pages = mmap(NULL, PAGES * sizeof(page_t), PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (pages == MAP_FAILED) {
		perror("mmap");
		return 1;
	}
	for (unsigned long page = 0; page < PAGES; page++)
		write_page(page, 0);

	do {
		do_round();
		if (rounds % TELL == 1)
			tell();
	} while (poll(&input, 1, PAUSE) == 0);

	printf("end: ");
	tell();
	tcdrain(STDOUT_FILENO);
	reboot(RB_AUTOBOOT);
	return 1;
}
