/* What the operations of a network take, each by itself.
 *
 *     bench_table MODEL NETWORK fp32|fp16|bf16 FRAMES LATENT_H LATENT_W [cpu|cuda]
 *
 * NETWORK as in rig.h. Equal operations are measured once. A time is that of one of several copies that a
 * program has behind each other (one graph on CUDA), about BATCH_SECONDS of them together, the best of RUNS
 * launches after one that warms up; small operands may therefore come from the cache. Flops are those of
 * products, bytes what has to be read and written once. Prints JSON: the rows in the order of the network,
 * with the plans that libraries run for them. */
#include "rig.h"
#include "single.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { RUNS = 3, MAX_COPIES = 64 };
enum { STEPS = 2 * (RUNS + 1) * (MAX_COPIES + 1) }; /* copies of a step count on */
static const double BATCH_SECONDS = 2e-3;

static double best_seconds(rig *r, const vd_program *p) {
    loaded l;
    loaded_open(&l, r, p);
    loaded_run(&l);
    double best = 1e9;
    for (int i = 0; i < RUNS; i++) {
        double seconds = loaded_run(&l);
        best = seconds < best ? seconds : best;
    }
    loaded_close(&l);
    return best;
}

static double seconds_of(rig *r, const vd_program *p, int op, int copies) {
    vd_program *one;
    MUST(single_new(p, op, copies, &one, err));
    double seconds = best_seconds(r, one) / copies;
    vd_program_free(one);
    return seconds;
}

static double flops_of(const vd_program *p, int op) {
    vd_program *one;
    MUST(single_new(p, op, 1, &one, err));
    double flops = vd_program_flops(one);
    vd_program_free(one);
    return flops;
}

/* Those that the backend has listed from `first` to `last`. */
static void print_plans(const vd_backend *b, int first, int last) {
    printf("\"plans\": [");
    for (int i = first; i < last; i++)
        printf("%s\"%s\"", i > first ? ", " : "", b->table->kernel(b, i));
    printf("]");
}

static void print_row(rig *r, const vd_program *p, const op_group *g) {
    const vd_backend *b = r->backend;
    int before = b->table->kernel_count(b);
    double seconds = seconds_of(r, p, g->first, 1);
    int after = b->table->kernel_count(b);
    if (seconds * MAX_COPIES > BATCH_SECONDS)
        seconds = seconds > BATCH_SECONDS ? seconds
                                          : seconds_of(r, p, g->first, (int)(BATCH_SECONDS / seconds) + 1);
    else
        seconds = seconds_of(r, p, g->first, MAX_COPIES);
    printf("{\"kind\": \"%s\", \"what\": \"%s\", \"count\": %d, \"seconds\": %.4g, \"flops\": %.6g, "
           "\"bytes\": %.6g, ",
           vd_op_name(p->ops[g->first].kind), g->what, g->count, seconds, flops_of(p, g->first),
           op_bytes(p, g->first));
    print_plans(b, before, after);
    printf("}");
}

static void print_table(rig *r, const vd_program *p) {
    int count;
    op_group *groups = groups_of(p, &count);
    printf("{\"whole_s\": %.6g, \"rows\": [", best_seconds(r, p));
    for (int i = 0; i < count; i++) {
        printf("%s\n  ", i ? "," : "");
        print_row(r, p, &groups[i]);
        fflush(stdout);
    }
    printf("\n]}\n");
    groups_free(groups, count);
}

int main(int argc, char **argv) {
    if (argc < 7) {
        fprintf(stderr,
                "usage: bench_table MODEL NETWORK fp32|fp16|bf16 FRAMES LATENT_H LATENT_W [cpu|cuda]\n");
        return VD_ERR_USAGE;
    }
    vd_video_shape shape = {
        .frames = atoi(argv[4]), .latent_h = atoi(argv[5]), .latent_w = atoi(argv[6]), .steps = STEPS};
    vd_model *model;
    rig r;
    MUST(vd_model_open(argv[1], NULL, &model, err));
    vd_program *program = rig_network(model, argv[2], rig_dtype(argv[3]), shape, false);
    rig_open(&r, argc > 7 && strcmp(argv[7], "cuda") == 0, 1);
    print_table(&r, program);
    rig_close(&r);
    vd_program_free(program);
    vd_model_close(model);
    return VD_OK;
}
