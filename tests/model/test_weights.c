/* Constants as recipes over tensors: slices, stacks, sums, factors, sharing, refusals. */
#include "model/folder.h"
#include "must.h"

#include "model/weights.h"

#include <math.h>

typedef struct fixture {
    folder where;
    vd_store *store;
    vd_weights *weights;
} fixture;

/* a [2,3] = 1..6, b [3] = 10 20 30, k [2,2,1,2] = 1..8, mix [1] = 1, mix0 [] = -2 */
static int setup(void **state) {
    static const float a[] = {1, 2, 3, 4, 5, 6}, b[] = {10, 20, 30}, k[] = {1, 2, 3, 4, 5, 6, 7, 8}, mix = 1,
                       mix0 = -2;
    const vd_st_out tensors[] = {
        {"a", VD_ST_F32, 2, {2, 3}, a},       {"b", VD_ST_F32, 1, {3}, b},
        {"k", VD_ST_F32, 4, {2, 2, 1, 2}, k}, {"mix", VD_ST_F32, 1, {1}, &mix},
        {"mix0", VD_ST_F32, 0, {0}, &mix0},
    };
    fixture *f = calloc(1, sizeof *f);
    f->where = folder_make();
    must(vd_safetensors_write(folder_path(&f->where, "model.safetensors"), tensors, 5, false, err));
    must(vd_store_open(f->where.path, "model", &f->store, err));
    assert_non_null(f->weights = vd_weights_new(f->store));
    *state = f;
    return 0;
}

static int teardown(void **state) {
    fixture *f = *state;
    vd_weights_free(f->weights);
    vd_store_close(f->store);
    folder_remove(&f->where);
    free(f);
    return 0;
}

static void check(const vd_constant *c, int count, const float *expected) {
    float values[16];
    assert_non_null(c);
    assert_int_equal(c->dims[0] * c->dims[1] * c->dims[2] * c->dims[3], count);
    for (int i = 0; i < 16; i++)
        values[i] = NAN; /* fill must not depend on what was there */
    must(c->fill(c, values, err));
    for (int i = 0; i < count; i++)
        assert_float_equal(values[i], expected[i], 0);
    for (int i = count; i < 16; i++)
        assert_true(isnan(values[i]));
}

static void whole_tensors_and_their_rows_and_columns(void **state) {
    vd_weights *w = ((fixture *)*state)->weights;
    check(vd_weights_vector(w, (vd_name){"b"}, 3), 3, (float[]){10, 20, 30});
    check(vd_weights_matrix(w, (vd_name){"a"}, 2, 3), 6, (float[]){1, 2, 3, 4, 5, 6});
    vd_part columns = VD_PART(.name = {"a"}, .dims = {2, 3}, .column = 1, .columns = 2);
    check(vd_weights_constant(w, (int64_t[4]){2, 2, 1, 1}, &columns, 1), 4, (float[]){2, 3, 5, 6});
    vd_part row = VD_PART(.name = {"a"}, .dims = {2, 3}, .rows = 1);
    check(vd_weights_constant(w, (int64_t[4]){1, 3, 1, 1}, &row, 1), 3, (float[]){1, 2, 3});
    vd_part channel = VD_PART(.name = {"k"}, .dims = {2, 2, 1, 2}, .column = 1, .columns = 1);
    check(vd_weights_constant(w, (int64_t[4]){2, 1, 1, 2}, &channel, 1), 4, (float[]){3, 4, 7, 8});
}

static void stacks_sums_and_factors(void **state) {
    vd_weights *w = ((fixture *)*state)->weights;
    vd_part stack[] = {VD_PART(.name = {"b"}, .dims = {3}),
                       {.name = {"b"}, .dims = {3}, .scale = 0.5f},
                       VD_PART(.name = {"a"}, .dims = {2, 3}, .at = 2)};
    check(vd_weights_constant(w, (int64_t[4]){3, 1, 1, 1}, stack, 1), 3, (float[]){10, 20, 30});
    check(vd_weights_constant(w, (int64_t[4]){3, 1, 1, 1}, stack, 2), 3, (float[]){15, 30, 45});
    stack[1].at = 1;
    check(vd_weights_constant(w, (int64_t[4]){4, 3, 1, 1}, stack, 3), 12,
          (float[]){10, 20, 30, 5, 10, 15, 1, 2, 3, 4, 5, 6});
    /* a short part is added to the beginning, as the class embedding is to the position embeddings */
    vd_part embedding[] = {VD_PART(.name = {"a"}, .dims = {2, 3}), VD_PART(.name = {"b"}, .dims = {3})};
    check(vd_weights_constant(w, (int64_t[4]){2, 3, 1, 1}, embedding, 2), 6, (float[]){11, 22, 33, 4, 5, 6});
    vd_part nothing = {.name = {"b"}, .dims = {3}, .scale = 0};
    check(vd_weights_constant(w, (int64_t[4]){3, 1, 1, 1}, &nothing, 1), 3, (float[]){0, 0, 0});
}

static void long_sums_are_made_in_pieces(void **state) {
    fixture *f = *state;
    enum { COUNT = 5000 }; /* more than fits the buffer of a sum */
    float *values = malloc(COUNT * sizeof *values);
    assert_non_null(values);
    for (int i = 0; i < COUNT; i++)
        values[i] = (float)i;
    folder where = folder_make();
    vd_st_out tensor = {"long", VD_ST_F32, 1, {COUNT}, values};
    must(vd_safetensors_write(folder_path(&where, "model.safetensors"), &tensor, 1, false, err));
    vd_store *store;
    must(vd_store_open(where.path, "model", &store, err));
    vd_weights *w = vd_weights_new(store);
    vd_part twice[] = {VD_PART(.name = {"long"}, .dims = {COUNT}),
                       VD_PART(.name = {"long"}, .dims = {COUNT})};
    const vd_constant *sum = vd_weights_constant(w, (int64_t[4]){COUNT, 1, 1, 1}, twice, 2);
    assert_non_null(sum);
    must(sum->fill(sum, values, err));
    for (int i = 0; i < COUNT; i++)
        assert_float_equal(values[i], 2.0f * (float)i, 0);
    vd_weights_free(w);
    vd_store_close(store);
    folder_remove(&where);
    free(values);
    assert_int_equal(vd_weights_error(f->weights, &(vd_error){0}), VD_OK);
}

static void equal_requests_share(void **state) {
    vd_weights *w = ((fixture *)*state)->weights;
    const vd_constant *one = vd_weights_matrix(w, (vd_name){"a"}, 2, 3);
    assert_ptr_equal(vd_weights_matrix(w, (vd_name){"a"}, 2, 3), one);
    vd_part half = {.name = {"a"}, .dims = {2, 3}, .scale = 0.5f};
    assert_ptr_not_equal(vd_weights_constant(w, (int64_t[4]){2, 3, 1, 1}, &half, 1), one);
    half.scale = 1;
    assert_ptr_equal(vd_weights_constant(w, (int64_t[4]){2, 3, 1, 1}, &half, 1), one);
    assert_ptr_not_equal(vd_weights_constant(w, (int64_t[4]){6, 1, 1, 1}, &half, 1), one);
    assert_string_equal(one->name, "a");
}

static void mix_factors(void **state) {
    vd_weights *w = ((fixture *)*state)->weights;
    assert_float_equal(vd_weights_mix(w, (vd_name){"mix"}), 1 / (1 + expf(-1)), 0);
    assert_float_equal(vd_weights_mix(w, (vd_name){"mix0"}), 1 / (1 + expf(2)), 0);
}

static void the_first_failure_is_kept(void **state) {
    vd_weights *w = ((fixture *)*state)->weights;
    vd_error err = {0};
    assert_int_equal(vd_weights_error(w, &err), VD_OK);
    assert_null(vd_weights_matrix(w, (vd_name){"a"}, 3, 2));
    assert_null(vd_weights_vector(w, (vd_name){"missing"}, 3));
    assert_null(vd_weights_vector(w, (vd_name){"b"}, 3));
    assert_float_equal(vd_weights_mix(w, (vd_name){"mix"}), 0, 0);
    check_refusal("shape", vd_weights_error(w, &err), VD_ERR_DATA, &err, "'a'", "has shape [2, 3]", 0);
}

static void missing_tensors_are_named(void **state) {
    vd_weights *w = ((fixture *)*state)->weights;
    vd_error err = {0};
    assert_null(vd_weights_vector(w, vd_name_in((vd_name){"up."}, "%d.", 7), 3));
    check_refusal("missing", vd_weights_error(w, &err), VD_ERR_DATA, &err, "'up.7.'", "is missing", 0);
}

static void parts_must_fill_the_constant(void **state) {
    static const vd_part wrong[][2] = {
        {VD_PART(.name = {"b"}, .dims = {3}), VD_PART(.name = {"b"}, .dims = {3}, .at = 4)}, /* a hole */
        {VD_PART(.name = {"b"}, .dims = {3}), VD_PART(.name = {"b"}, .dims = {3}, .at = 1)}, /* half added */
        {VD_PART(.name = {"b"}, .dims = {3}), VD_PART(.name = {"b"}, .dims = {3})},          /* too little */
        {VD_PART(.name = {"a"}, .dims = {2, 3}), VD_PART(.name = {"b"}, .dims = {3}, .at = 6)}, /* too much */
    };
    fixture *f = *state;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        vd_weights *w = vd_weights_new(f->store);
        assert_null(vd_weights_constant(w, (int64_t[4]){6, 1, 1, 1}, wrong[i], 2));
        assert_int_equal(vd_weights_error(w, &(vd_error){0}), VD_ERR_INTERNAL);
        vd_weights_free(w);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(whole_tensors_and_their_rows_and_columns),
        TEST(stacks_sums_and_factors),
        TEST(long_sums_are_made_in_pieces),
        TEST(equal_requests_share),
        TEST(mix_factors),
        TEST(the_first_failure_is_kept),
        TEST(missing_tensors_are_named),
        TEST(parts_must_fill_the_constant),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
