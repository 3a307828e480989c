/* Programs as data: the order of reads and writes, views, and a planned arena that never lets one value harm
 * another. */
#include "must.h"

#include "base/hash.h"
#include "base/layout.h"
#include "device/program.h"

#include <stdlib.h>
#include <string.h>

enum { C = 64 };

static const vd_constant square = {.name = "square", .dims = {C, C, 1, 1}};
static const vd_constant kernel = {.name = "kernel", .dims = {C, C, 3, 3}};
static const vd_constant vector = {.name = "vector", .dims = {C, 1, 1, 1}};
static const vd_norm layer = {.kind = VD_NORM_LAYER, .gamma = &vector, .beta = &vector, .eps = 1e-5f};

static vd_value external(vd_program *p, vd_dtype t, int64_t n, int64_t h, int64_t w, int64_t c) {
    return vd_program_external(p, "external", t, (vd_shape){n, h, w, c});
}

/* ---- the order of reads and writes ---- */

static void check_finish(vd_program *p, vd_code expected, const char *reason) {
    vd_error error = {0};
    vd_code code = vd_program_finish(p, &error);
    if (code != expected || (reason && !strstr(error.message, reason)))
        fail_msg("code %d, expected %d with '%s': %s", code, expected, reason ? reason : "", error.message);
    vd_program_free(p);
}

static void test_read_before_write(void **state) {
    (void)state;
    vd_program *p = vd_program_new("early", VD_F32);
    vd_shape shape = vd_vector_shape(8);
    vd_value a = vd_program_temporary(p, VD_F32, shape), b = vd_program_temporary(p, VD_F32, shape);
    vd_program_copy(p, (vd_copy){a, b});
    check_finish(p, VD_ERR_INTERNAL, "program early, operation 0 (copy) reads value 0 before it is written");

    p = vd_program_new("counter", VD_F32); /* an operand that is read and written counts as read */
    a = vd_program_external(p, "a", VD_F32, shape);
    vd_program_nonfinite(p, (vd_nonfinite){a, vd_program_temporary(p, VD_I32, vd_vector_shape(1))});
    check_finish(p, VD_ERR_INTERNAL, "(nonfinite) reads value 1 before it is written");

    p = vd_program_new("view", VD_F32); /* a view is its parent */
    a = vd_program_external(p, "a", VD_F32, shape);
    b = vd_program_temporary(p, VD_F32, shape);
    vd_program_copy(p, (vd_copy){vd_program_view(p, b, vd_vector_shape(4), 4),
                                 vd_program_view(p, a, vd_vector_shape(4), 0)});
    check_finish(p, VD_ERR_INTERNAL, "before it is written");

    p = vd_program_new("constant", VD_F32);
    a = vd_program_external(p, "a", VD_F32, vd_vector_shape(C));
    vd_program_copy(p, (vd_copy){a, vd_program_constant(p, &vector, VD_F32, vd_vector_shape(C))});
    check_finish(p, VD_ERR_INTERNAL, "writes a constant");
}

static void test_views(void **state) {
    (void)state;
    vd_program *p = vd_program_new("views", VD_F16);
    vd_value a = vd_program_external(p, "a", VD_F16, vd_vector_shape(100));
    vd_value b = vd_program_view(p, a, vd_vector_shape(50), 40),
             c = vd_program_view(p, b, vd_vector_shape(10), 40);
    assert_int_equal(p->values[c].parent, a); /* never a view of a view */
    assert_int_equal(p->values[c].offset, 80 * 2);
    assert_int_equal(vd_program_find(p, "a"), a);
    assert_int_equal(vd_program_find(p, "b"), VD_NONE);
    assert_int_equal(vd_program_view(p, b, vd_vector_shape(10), 41), VD_NONE);
    vd_program_view(p, b, vd_vector_shape(1), -1); /* the first error is the one that is told */
    check_finish(p, VD_ERR_INTERNAL, "a view of 10 elements from 41 leaves its value of 50");
}

static void test_flops(void **state) {
    (void)state;
    vd_program *p = vd_program_new("flops", VD_F16);
    vd_value x = external(p, VD_F16, 2, 3, 5, C);
    vd_program_linear(p, VD_LINEAR(.src = x, .weight = &square));
    assert_true(vd_program_flops(p) == 2.0 * 30 * C * C);
    vd_program_conv(p, VD_CONV(.src = x, .weight = &kernel, .pad_top = 1, .pad_left = 1, .pad_bottom = 1,
                               .pad_right = 1));
    assert_true(vd_program_flops(p) == 2.0 * 30 * C * C * 10);
    check_finish(p, VD_OK, NULL);
}

/* ---- the arena ---- */

enum { PROGRAMS = 3000, MAX_VALUES = 128, VALUE_BYTES = 8 * C * 4 };

static uint64_t next_random(uint64_t *s) {
    *s = *s * 6364136223846793005u + 1442695040888963407u;
    return *s >> 33;
}

/* Values that may be read, by their number of rows (a power of two up to 8). */
typedef struct pool {
    vd_program *p;
    uint64_t random;
    vd_value readable[MAX_VALUES];
    int count;
} pool;

static vd_value pick(pool *w, int64_t rows) {
    vd_value found = VD_NONE;
    int start = (int)(next_random(&w->random) % (uint64_t)w->count);
    for (int i = 0; i < w->count && found == VD_NONE; i++) {
        vd_value v = w->readable[(start + i) % w->count];
        if (vd_program_shape(w->p, v).w == rows)
            found = v;
    }
    return found;
}

static void add_readable(pool *w, vd_value v) {
    if (w->count < MAX_VALUES)
        w->readable[w->count++] = v;
}

/* Destination: mostly new, sometimes a value that is overwritten. */
static vd_value choose_destination(pool *w, int64_t rows, vd_value *used, int used_count) {
    if (next_random(&w->random) % 4)
        return VD_NONE;
    vd_value v = pick(w, rows);
    for (int i = 0; i < used_count; i++)
        if (v == used[i] || w->p->values[v].storage == VD_STORAGE_VIEW)
            return VD_NONE;
    return v;
}

/* Writes a new value through views of its halves. */
static void add_halves(pool *w, int64_t rows) {
    vd_shape half = {1, 1, rows / 2, C};
    vd_value whole = vd_program_temporary(w->p, VD_F32, (vd_shape){1, 1, rows, C});
    for (int i = 0; i < 2; i++) {
        vd_value part = vd_program_view(w->p, whole, half, i * rows / 2 * C);
        vd_program_copy(w->p, (vd_copy){pick(w, rows / 2), part});
        add_readable(w, part);
    }
    add_readable(w, whole);
}

static void add_operation(pool *w) {
    int64_t rows = 1 << next_random(&w->random) % 4;
    vd_value a = pick(w, rows), b = pick(w, rows), used[] = {a, b},
             dst = choose_destination(w, rows, used, 2);
    vd_linear linear_op = VD_LINEAR(.src = a, .weight = &square);
    vd_conv conv_op = VD_CONV(.src = a, .weight = &square);
    vd_feed_forward bracket =
        VD_FEED_FORWARD(.src = a, .norm = layer, .act = VD_ACT_GELU, .up_weight = &square, .up_bias = &vector,
                        .down_weight = &square, .down_bias = &vector);
    switch (next_random(&w->random) % 6) {
    case 0:
        if (dst == VD_NONE)
            dst = vd_program_temporary(w->p, VD_F32, vd_program_shape(w->p, a));
        vd_program_copy(w->p, (vd_copy){a, dst});
        break;
    case 1:
        linear_op.residual = b;
        linear_op.dst = dst;
        dst = vd_program_linear(w->p, linear_op);
        break;
    case 2:
        conv_op.residual = b;
        conv_op.dst = dst;
        dst = vd_program_conv(w->p, conv_op);
        break;
    case 3:
        bracket.mix = b;
        bracket.dst = dst;
        dst = vd_program_feed_forward(w->p, bracket);
        break;
    case 4:
        dst = vd_program_layer_norm(w->p, (vd_layer_norm){.src = a, .norm = layer, .dst = dst});
        break;
    case 5:
        if (rows > 1)
            add_halves(w, rows);
        return;
    }
    add_readable(w, dst);
}

static vd_value root_of(const vd_value_info *values, vd_value v) {
    return values[v].storage == VD_STORAGE_VIEW ? values[v].parent : v;
}

/* Runs the program on bytes: an operation writes what depends on all that it reads, and on nothing else.
 * `at` says where each value lies. `read` [op_count] gets what each operation has read. */
static void interpret(const vd_program *p, unsigned char *const *at, uint64_t *read) {
    for (int i = 0; i < p->op_count; i++) {
        vd_operand operands[VD_MAX_OPERANDS];
        int count = vd_op_operands(&p->ops[i], operands);
        uint64_t sum = (uint64_t)i;
        for (int k = 0; k < count; k++)
            if (operands[k].reads)
                sum = sum * 31 + vd_hash64(at[operands[k].value],
                                           (size_t)vd_shape_count(p->values[operands[k].value].shape) * 4);
        for (int k = 0; k < count; k++) {
            uint32_t *out = (uint32_t *)at[operands[k].value];
            for (int64_t e = 0; operands[k].writes && e < vd_shape_count(p->values[operands[k].value].shape);
                 e++)
                out[e] = (uint32_t)(sum >> 16) + (uint32_t)e;
        }
        read[i] = sum;
    }
}

/* Every value in memory of its own, except that views lie in their parents. */
static void place_apart(const vd_value_info *values, int count, unsigned char *memory, unsigned char **at) {
    for (vd_value v = 0; v < count; v++) {
        size_t offset = values[v].storage == VD_STORAGE_VIEW ? values[v].offset : 0;
        at[v] = memory + (size_t)root_of(values, v) * VALUE_BYTES + offset;
    }
}

/* As planned: temporaries in the arena, externals apart. Also checks that places lie inside. */
static void place_planned(const vd_program *p, unsigned char *arena, unsigned char *memory,
                          unsigned char **at) {
    for (vd_value v = 0; v < p->value_count; v++) {
        const vd_value_info *root = &p->values[root_of(p->values, v)];
        size_t offset = p->values[v].storage == VD_STORAGE_VIEW ? p->values[v].offset : 0;
        bool external = root->storage == VD_STORAGE_EXTERNAL;
        at[v] =
            (external ? memory + (size_t)(root - p->values) * VALUE_BYTES : arena + root->offset) + offset;
        if (!external)
            assert_true(root->offset + offset + (size_t)vd_shape_count(p->values[v].shape) * 4 <=
                        p->arena_bytes);
    }
}

/* Operands whose memory the destination may be, as ops.h says: each is read no later than the result is
 * written there. */
static bool may_be_overwritten(const vd_op *op, vd_value v) {
    switch (op->kind) {
    case VD_OP_CONV:
        return v == op->conv.residual && v != op->conv.src;
    case VD_OP_LINEAR:
        return v == op->linear.residual && v != op->linear.src;
    case VD_OP_FEED_FORWARD:
        return (v == op->feed_forward.src) != (v == op->feed_forward.mix);
    default:
        return false;
    }
}

/* No operation reads memory that it has overwritten, but for the operands that it may share as a whole. */
static void check_sharing(const vd_program *p, unsigned char *const *at) {
    for (int i = 0; i < p->op_count; i++) {
        vd_operand o[VD_MAX_OPERANDS];
        int count = vd_op_operands(&p->ops[i], o), dst = count - 1;
        size_t written = (size_t)vd_shape_count(p->values[o[dst].value].shape) * 4;
        for (int k = 0; k < dst; k++) {
            size_t bytes = (size_t)vd_shape_count(p->values[o[k].value].shape) * 4;
            const unsigned char *a = at[o[k].value], *b = at[o[dst].value];
            if (a + bytes <= b || b + written <= a)
                continue;
            if (a != b || !may_be_overwritten(&p->ops[i], o[k].value))
                fail_msg("operation %d (%s) overwrites its operand %d", i, vd_op_name(p->ops[i].kind), k);
        }
    }
}

static vd_program *random_program(uint64_t seed) {
    pool w = {.p = vd_program_new("random", VD_F32), .random = seed};
    assert_non_null(w.p);
    for (int64_t rows = 1; rows <= 8; rows *= 2)
        add_readable(&w, external(w.p, VD_F32, 1, 1, rows, C));
    int operations = 3 + (int)(next_random(&w.random) % 24);
    for (int i = 0; i < operations; i++)
        add_operation(&w);
    return w.p;
}

/* Bytes of all temporaries; what an arena without a plan would take. */
static size_t sum_of_temporaries(const vd_program *p) {
    size_t sum = 0;
    for (vd_value v = 0; v < p->value_count; v++)
        if (p->values[v].storage == VD_STORAGE_ARENA)
            sum += vd_align_up((size_t)vd_shape_count(p->values[v].shape) * 4);
    return sum;
}

static void fill_externals(unsigned char *memory) {
    for (int i = 0; i < 4 * VALUE_BYTES; i++) /* the four externals are the first values */
        memory[i] = (unsigned char)(i * 37 + i / 251);
}

static void test_arena(void **state) {
    (void)state;
    unsigned char *apart = malloc(2 * MAX_VALUES * VALUE_BYTES), *planned = malloc(4 * VALUE_BYTES),
                  *at[2 * MAX_VALUES];
    unsigned char *arena = malloc(2 * MAX_VALUES * VALUE_BYTES);
    assert_true(apart && planned && arena);
    size_t saved = 0, overtaken = 0;
    for (int i = 0; i < PROGRAMS; i++) {
        vd_program *p = random_program((uint64_t)i);
        uint64_t expected[2 * MAX_VALUES], got[2 * MAX_VALUES];
        assert_in_range(p->value_count, 4, 2 * MAX_VALUES - 1);
        fill_externals(apart);
        place_apart(p->values, p->value_count, apart, at);
        interpret(p, at, expected);
        size_t sum = sum_of_temporaries(p);
        must(vd_program_finish(p, err));
        assert_true(p->arena_bytes <= sum);
        saved += p->arena_bytes < sum;
        overtaken += sum_of_temporaries(p) < sum;
        fill_externals(planned);
        memset(arena, 0xA5, p->arena_bytes);
        place_planned(p, arena, planned, at);
        check_sharing(p, at);
        interpret(p, at, got);
        for (int k = 0; k < p->op_count; k++)
            if (got[k] != expected[k])
                fail_msg("program %d: operation %d (%s) read something else than with memory apart", i, k,
                         vd_op_name(p->ops[k].kind));
        assert_memory_equal(planned, apart, 4 * VALUE_BYTES);
        vd_program_free(p);
    }
    assert_true(saved > PROGRAMS / 2 && overtaken > PROGRAMS / 10); /* the plan does something */
    free(apart);
    free(planned);
    free(arena);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_read_before_write), cmocka_unit_test(test_views),
                                       cmocka_unit_test(test_flops), cmocka_unit_test(test_arena)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
