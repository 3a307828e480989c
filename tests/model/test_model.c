/* Programs of a whole model without running them: what they bind, share, weigh and cost, and what a wrong
 * file does. */
#include "model/hollow.h"

#include "model/dummy.h"
#include "model/networks.h"

static const vd_video_shape tiny_video = {2, 16, 16, 3, true};

static void build_all(vd_model *m, vd_program *out[5]) {
    must(vd_build_clip(m, VD_F32, &out[0], err));
    must(vd_build_vae_encoder(m, VD_F32, 64, 64, &out[1], err));
    must(vd_build_condition(m, VD_F32, tiny_video, &out[2], err));
    must(vd_build_step(m, VD_F32, tiny_video, false, &out[3], err));
    must(vd_build_decoder(m, VD_F32, 2, 16, 16, &out[4], err));
}

static void count_line(void *user, vd_log_level level, const char *line) {
    (void)level;
    print_message("%s\n", line);
    ++*(int *)user;
}

/* Whatever the reference saves is used, or known to have no effect: no warning. */
static void no_tensor_is_forgotten(void **state) {
    (void)state;
    static const char *const names[] = {"tiny", "odd", "last"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        folder where = folder_make();
        char configs[64];
        snprintf(configs, sizeof configs, "tests/golden/configs/%s", names[i]);
        must(vd_dummy_write(configs, where.path, 0, VD_ST_F16, err));
        vd_model *m;
        must(vd_model_open(where.path, NULL, &m, err));
        int lines = 0;
        vd_log log = {count_line, &lines, VD_LOG_DEBUG};
        vd_program *programs[5];
        build_all(m, programs);
        vd_model_warn_unused(m, &log);
        assert_int_equal(lines, 0);
        for (int k = 0; k < 5; k++)
            vd_program_free(programs[k]);
        vd_model_close(m);
        folder_remove(&where);
    }
}

static vd_model *open_tiny(const folder *where) {
    vd_model *m;
    must(vd_dummy_write("tests/golden/configs/tiny", where->path, 0, VD_ST_F16, err));
    must(vd_model_open(where->path, NULL, &m, err));
    return m;
}

/* Programs of other shapes and types hold the same constants, so a device holds one copy of each. */
static void programs_share_their_constants(void **state) {
    (void)state;
    folder where = folder_make();
    vd_model *m = open_tiny(&where);
    vd_program *one, *other;
    must(vd_build_step(m, VD_F32, tiny_video, false, &one, err));
    must(vd_build_step(m, VD_BF16, (vd_video_shape){5, 9, 7, 4, false}, true, &other, err));
    assert_int_equal(one->op_count, other->op_count);
    for (int i = 0; i < one->op_count; i++) {
        const vd_constant *a[VD_MAX_CONSTANTS], *b[VD_MAX_CONSTANTS];
        int count = vd_op_constants(&one->ops[i], a);
        assert_int_equal(vd_op_constants(&other->ops[i], b), count);
        for (int k = 0; k < count; k++)
            assert_ptr_equal(a[k], b[k]);
    }
    vd_program_free(one);
    vd_program_free(other);
    vd_model_close(m);
    folder_remove(&where);
}

static void check_externals(const vd_program *p, const char *names) {
    char found[256] = "";
    for (vd_value v = 0; v < p->value_count; v++)
        if (p->values[v].storage == VD_STORAGE_EXTERNAL) {
            assert_ptr_equal(&p->values[vd_program_find(p, p->values[v].name)], &p->values[v]);
            snprintf(found + strlen(found), sizeof found - strlen(found), "%s ", p->values[v].name);
        }
    assert_string_equal(found, names);
}

static void programs_bind_what_they_promise(void **state) {
    (void)state;
    folder where = folder_make();
    vd_model *m = open_tiny(&where);
    vd_program *p[5], *watched;
    build_all(m, p);
    must(vd_build_step(m, VD_F32, tiny_video, true, &watched, err));
    check_externals(p[0], "clip_pixels embeds ");
    check_externals(p[1], "vae_pixels image ");
    check_externals(
        p[2], "embeds context positions time_ids timesteps step_bias latents image sigmas step unet_in ");
    check_externals(p[3], "step_bias context positions guidance latents image sigmas step unet_in ");
    check_externals(p[4], "decoder_latents nonfinite decoder_frames ");
    check_externals(watched,
                    "step_bias context positions guidance latents image sigmas step unet_in unet_out ");
    for (int k = 0; k < 5; k++)
        vd_program_free(p[k]);
    vd_program_free(watched);
    vd_model_close(m);
    folder_remove(&where);
}

/* A configuration that asks for other shapes than the file has: named, with both shapes, and no program comes
 * out. */
static void a_wrong_shape_is_refused(void **state) {
    (void)state;
    folder where = folder_make();
    vd_model_close(open_tiny(&where));
    char *text;
    size_t length;
    must(vd_file_read(folder_path(&where, "unet/config.json"), "config", 1 << 20, &text, &length, err));
    char *dim = strstr(text, "\"addition_time_embed_dim\": 32"), *ids = strstr(text, "_input_dim\": 96");
    assert_true(dim && ids);
    dim[strlen("\"addition_time_embed_dim\": ")] = '2'; /* 22 */
    memcpy(ids + strlen("_input_dim\": "), "66", 2);
    folder_write(&where, "unet/config.json", text, length);
    free(text);
    vd_model *m;
    must(vd_model_open(where.path, NULL, &m, err));
    vd_program *p = NULL;
    vd_error err = {0};
    vd_code code = vd_build_condition(m, VD_F32, tiny_video, &p, &err);
    check_refusal("shape", code, VD_ERR_DATA, &err, "'add_embedding.linear_1.weight'",
                  "[128, 96], the configuration needs [128, 66]", 0);
    assert_null(p);
    vd_model_close(m);
    folder_remove(&where);
}

/* ---- the real model's size, from files that hold no bytes ---- */

static vd_code build_component(vd_model *m, int component, vd_error *err) {
    vd_program *p[2] = {0};
    vd_code code = VD_OK;
    if (component == 0) {
        code = vd_build_condition(m, VD_F32, tiny_video, &p[0], err);
        if (code == VD_OK)
            code = vd_build_step(m, VD_F32, tiny_video, false, &p[1], err);
    } else if (component == 1) {
        code = vd_build_vae_encoder(m, VD_F32, 64, 64, &p[0], err);
        if (code == VD_OK)
            code = vd_build_decoder(m, VD_F32, 2, 16, 16, &p[1], err);
    } else
        code = vd_build_clip(m, VD_F32, &p[0], err);
    vd_program_free(p[0]);
    vd_program_free(p[1]);
    return code;
}

/* Unused by cross-attention over one key; and the mid attention when there is one layer per block. */
static bool has_no_effect(const char *name) {
    return strstr(name, "attn2.to_q") || strstr(name, "attn2.to_k") ||
           strstr(name, "decoder.mid_block.attentions") ||
           (strstr(name, "transformer_blocks") && strstr(name, ".norm2."));
}

/* One tensor after another is left out: the model that lacks it is refused by that name. */
static void a_missing_tensor_is_named(void **state) {
    (void)state;
    enum { EVERY = 11 }; /* a sample of them, of all kinds */
    hollow h = hollow_make("tests/golden/configs/tiny");
    for (int component = 0; component < 3; component++) {
        const vd_inventory *all = &h.tensors[component];
        char file[256];
        snprintf(file, sizeof file, "%s/%s", h.where.path, hollow_files[component]);
        for (int i = component; i < all->count; i += EVERY) {
            char quoted[VD_TENSOR_NAME_CAP + 2];
            snprintf(quoted, sizeof quoted, "'%s'", all->items[i].name);
            hollow_write(file, all, all->items[i].name);
            vd_model *m;
            must(vd_model_open(h.where.path, NULL, &m, err));
            vd_error err = {0};
            vd_code code = build_component(m, component, &err);
            if (has_no_effect(quoted))
                assert_int_equal(code, VD_OK);
            else
                check_refusal(quoted, code, VD_ERR_DATA, &err, quoted, "is missing", 0);
            vd_model_close(m);
        }
        hollow_write(file, all, "");
    }
    hollow_remove(&h);
}

static int64_t constant_elements(const vd_program *p) {
    int64_t sum = 0;
    for (int i = 0; i < p->op_count; i++) {
        const vd_constant *all[VD_MAX_CONSTANTS];
        int count = vd_op_constants(&p->ops[i], all);
        for (int k = 0; k < count; k++)
            sum += all[k]->dims[0] * all[k]->dims[1] * all[k]->dims[2] * all[k]->dims[3];
    }
    return sum;
}

/* The work of a step is what the algebra of performance.md A7 leaves of it, and its memory is what is alive
 * at the widest point: seven tensors of the first level's attention, one of them three times as wide. */
static void the_real_model_costs_what_it_must(void **state) {
    (void)state;
    hollow h = hollow_make("tests/golden/configs/full");
    vd_model *m;
    vd_program *p;
    must(vd_model_open(h.where.path, NULL, &m, err));
    must(vd_build_step(m, VD_F16, (vd_video_shape){14, 72, 128, 25, true}, false, &p, err));
    assert_float_equal(vd_program_flops(p) * 1e-12, 86.15, 0.01);
    assert_int_equal(p->op_count, 300);
    size_t level0 = 2ull * 14 * 72 * 128 * 320 * 2;
    assert_in_range(p->arena_bytes, 9 * level0, 9 * level0 + (1 << 20));
    assert_in_range(constant_elements(p), 1265e6, 1275e6); /* 2.54 GB in fp16 */
    vd_program_free(p);
    must(vd_build_decoder(m, VD_F16, 14, 72, 128, &p, err));
    assert_float_equal(vd_program_flops(p) * 1e-12, 97.2, 0.1);
    assert_in_range(p->arena_bytes, 1, 4ull * 14 * 576 * 1024 * 128 * 2);
    vd_program_free(p);
    vd_model_close(m);
    hollow_remove(&h);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_tensor_is_forgotten),
        cmocka_unit_test(programs_share_their_constants),
        cmocka_unit_test(programs_bind_what_they_promise),
        cmocka_unit_test(a_wrong_shape_is_refused),
        cmocka_unit_test(a_missing_tensor_is_named),
        cmocka_unit_test(the_real_model_costs_what_it_must),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
