// SPDX-License-Identifier: GPL-2.0
/*
 * trace.so, a TCG plugin of QEMU: writes down what the CPU fetches, loads and
 * stores, for tools/vm/cache_lines.py.
 *
 *	qemu-system-x86_64 -plugin trace.so,out=FILE
 *
 * The guest turns recording on and off by a NOP with a certain displacement
 * (NOPL MARK_START(%rax)), which does nothing on any other machine.  FILE is an
 * array of struct record.  The machine must have one CPU.
 */
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "qemu_plugin.h"

#define EXPORT __attribute__((visibility("default")))

/* Displacements of the NOPs; tools/bench/src/lines.rs has them, too. */
#define MARK_START	0x6b766d01
#define MARK_STOP	0x6b766d02

enum kind {
	KIND_FETCH,
	KIND_LOAD,
	KIND_STORE,
	KIND_START,
	KIND_STOP,
};

struct record {
	uint64_t address;
	uint8_t kind;
	uint8_t size;
	uint8_t reserved[6];
};

EXPORT int qemu_plugin_version = PLUGIN_API;

static FILE *out;
static bool recording;

static void record(enum kind kind, uint64_t address, size_t size)
{
	struct record record = {
		.address = address,
		.kind = kind,
		.size = size,
	};

	fwrite(&record, sizeof(record), 1, out);
}

static void start(unsigned int vcpu, void *data)
{
	(void)vcpu;
	(void)data;
	record(KIND_START, 0, 0);
	recording = true;
}

static void stop(unsigned int vcpu, void *data)
{
	(void)vcpu;
	(void)data;
	recording = false;
	record(KIND_STOP, 0, 0);
	/* Whoever started QEMU kills it in the end. */
	fflush(out);
}

/*
 * An address and the size of an instruction in one pointer: of an address, the
 * upper 7 bits are copies of bit 56, and an instruction has at most 15 bytes.
 */
static void *pack(uint64_t address, size_t size)
{
	return (void *)(uintptr_t)(address << 4 | size);
}

static void executed(unsigned int vcpu, void *data)
{
	(void)vcpu;
	if (recording)
		record(KIND_FETCH, (int64_t)(uintptr_t)data >> 4,
		       (uintptr_t)data & 15);
}

static void accessed(unsigned int vcpu, uint32_t info, uint64_t address,
		     void *data)
{
	(void)vcpu;
	(void)data;
	if (recording)
		record(qemu_plugin_mem_is_store(info) ? KIND_STORE : KIND_LOAD,
		       address, 1u << qemu_plugin_mem_size_shift(info));
}

/* The displacement of NOPL disp32(%rax); 0 for any other instruction. */
static uint32_t mark_of(const struct qemu_plugin_insn *insn)
{
	static const uint8_t nopl[] = { 0x0f, 0x1f, 0x80 };
	uint8_t bytes[sizeof(nopl) + sizeof(uint32_t)];
	uint32_t displacement;

	if (qemu_plugin_insn_size(insn) != sizeof(bytes))
		return 0;
#if PLUGIN_API < 3
	memcpy(bytes, qemu_plugin_insn_data(insn), sizeof(bytes));
#else
	qemu_plugin_insn_data(insn, bytes, sizeof(bytes));
#endif
	if (memcmp(bytes, nopl, sizeof(nopl)))
		return 0;

	memcpy(&displacement, bytes + sizeof(nopl), sizeof(displacement));
	return displacement;
}

static void instrument(struct qemu_plugin_insn *insn)
{
	enum qemu_plugin_cb_flags flags = QEMU_PLUGIN_CB_NO_REGS;
	qemu_plugin_insn_cb cb = executed;
	void *data = NULL;

	switch (mark_of(insn)) {
	case MARK_START:
		cb = start;
		break;
	case MARK_STOP:
		cb = stop;
		break;
	default:
		data = pack(qemu_plugin_insn_vaddr(insn),
			    qemu_plugin_insn_size(insn));
		qemu_plugin_register_vcpu_mem_cb(insn, accessed, flags,
						 QEMU_PLUGIN_MEM_RW, NULL);
	}
	qemu_plugin_register_vcpu_insn_exec_cb(insn, cb, flags, data);
}

static void translated(uint64_t id, struct qemu_plugin_tb *tb)
{
	size_t i, n = qemu_plugin_tb_n_insns(tb);

	(void)id;
	for (i = 0; i < n; i++)
		instrument(qemu_plugin_tb_get_insn(tb, i));
}

EXPORT int qemu_plugin_install(uint64_t id, const void *info, int argc,
			       char **argv)
{
	(void)info;
	if (argc != 1 || strncmp(argv[0], "out=", 4)) {
		fprintf(stderr, "trace.so: give out=FILE and nothing else\n");
		return -1;
	}
	out = fopen(argv[0] + 4, "wb");
	if (!out) {
		perror(argv[0] + 4);
		return -1;
	}
	qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
	return 0;
}
