/* Operations of a program by themselves: what they are, grouped where they are the same, and each as a
 * program of its own, so that any backend can be asked what it gives and how long it takes. */
#ifndef VD_BENCH_SINGLE_H
#define VD_BENCH_SINGLE_H

#include "device/program.h"

/* Operations of the same kind, shapes, types and extras. */
typedef struct op_group {
    char *what; /* in words, all that makes it what it is */
    int first;  /* index of one of them */
    int count;
} op_group;

/* [*count], in order of first appearance; groups_free them. NULL and *count 0 when memory is out. */
op_group *groups_of(const vd_program *p, int *count);
void groups_free(op_group *groups, int count);

/* Operation `op` of `p`, `copies` times over: what it touches are externals, but for constants. */
vd_code single_new(const vd_program *p, int op, int copies, vd_program **out, vd_error *err);

/* Bytes that it has to read and to write, each once: operands and constants, of type T. */
double op_bytes(const vd_program *p, int op);

#endif
