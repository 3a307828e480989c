/* Configuration files: what the reference would run is read, what it would refuse or compute otherwise is
 * refused. */
#include "model/config.h"
#include "model/folder.h"

#include <jansson.h>

static const char full[] = "tests/golden/configs/full", odd[] = "tests/golden/configs/odd";

/* Overwrites the members in `patch` (JSON); a member "-KEY" removes KEY. */
static char *patched(const char *configs, int file, const char *patch) {
    char path[256], *text;
    json_error_t where;
    const char *key;
    json_t *value;
    snprintf(path, sizeof path, "%s/%s", configs, vd_config_files[file]);
    json_t *object = json_load_file(path, 0, &where), *changes = json_loads(patch, 0, &where);
    if (!object || !changes)
        fail_msg("%s %s: %s", path, patch, where.text);
    json_object_foreach(changes, key, value) {
        if (*key == '-')
            assert_int_equal(json_object_del(object, key + 1), 0);
        else
            assert_int_equal(json_object_set(object, key, value), 0);
    }
    text = json_dumps(object, 0);
    assert_non_null(text);
    json_decref(changes);
    json_decref(object);
    return text;
}

static vd_code parse(int file, const char *json, vd_config *out, vd_error *err) {
    size_t length = strlen(json);
    const char *name = vd_config_files[file];
    switch (file) {
    case VD_CONFIG_UNET:
        return vd_config_parse_unet(json, length, name, &out->unet, err);
    case VD_CONFIG_VAE:
        return vd_config_parse_vae(json, length, name, &out->vae, err);
    case VD_CONFIG_CLIP:
        return vd_config_parse_clip(json, length, name, &out->clip, err);
    default:
        return vd_config_parse_scheduler(json, length, name, &out->scheduler, err);
    }
}

enum { UNET = VD_CONFIG_UNET, VAE = VD_CONFIG_VAE, CLIP = VD_CONFIG_CLIP, SCHED = VD_CONFIG_SCHEDULER };

#define CROSS_DOWN "\"CrossAttnDownBlockSpatioTemporal\""

static const struct {
    int file;
    const char *patch, *key, *reason;
} bad[] = {
    {UNET, "{\"in_channels\": 9}", "in_channels", "twice 'out_channels', which is 4"},
    {UNET, "{\"in_channels\": -8}", "in_channels", "-8; expected an integer"},
    {UNET, "{\"in_channels\": 8.0}", "in_channels", "8.0; expected an integer"},
    {UNET, "{\"in_channels\": \"8\"}", "in_channels", "\"8\"; expected an integer"},
    {UNET, "{\"in_channels\": null}", "in_channels", "missing"},
    {UNET, "{\"in_channels\": 9223372036854775807}", "in_channels", "expected an integer"},
    {UNET, "{\"out_channels\": 0}", "out_channels", "0; expected an integer"},
    {UNET, "{\"block_out_channels\": []}", "block_out_channels", "a list of 1 to 8"},
    {UNET, "{\"block_out_channels\": 320}", "block_out_channels", "a list of 1 to 8"},
    {UNET, "{\"block_out_channels\": [32,32,32,32,32,32,32,32,32]}", "block_out_channels",
     "a list of 1 to 8"},
    {UNET, "{\"block_out_channels\": [320,640,1280,1281]}", "block_out_channels", "multiples of 32"},
    {UNET, "{\"block_out_channels\": [320,640,1280,0]}", "block_out_channels[3]",
     "expected an integer from 32"},
    {UNET, "{\"block_out_channels\": [320,640,1280,1048576]}", "block_out_channels[3]", "to 65536"},
    {UNET, "{\"block_out_channels\": [320,640,1280,[1280]]}", "block_out_channels[3]", "[1280]; expected"},
    {UNET, "{\"block_out_channels\": [320,640,1280]}", "down_block_types",
     "a list of 3 members, one per level"},
    {UNET, "{\"down_block_types\": [" CROSS_DOWN "]}", "down_block_types", "a list of 4 members"},
    {UNET, "{\"down_block_types\": " CROSS_DOWN "}", "down_block_types", "a list of 4 members"},
    {UNET, "{\"down_block_types\": [" CROSS_DOWN "," CROSS_DOWN "," CROSS_DOWN ",\"DownBlock2D\"]}",
     "down_block_types", "DownBlockSpatioTemporal or CrossAttnDownBlockSpatioTemporal"},
    {UNET, "{\"up_block_types\": [1,2,3,4]}", "up_block_types", "UpBlockSpatioTemporal"},
    {UNET, "{\"layers_per_block\": 0}", "layers_per_block[0]", "expected an integer from 1 to 15"},
    {UNET, "{\"layers_per_block\": 16}", "layers_per_block[0]", "expected an integer from 1 to 15"},
    {UNET, "{\"layers_per_block\": 2.5}", "layers_per_block[0]", "2.5; expected an integer"},
    {UNET, "{\"layers_per_block\": [2,2,2]}", "layers_per_block", "a list of 4 members"},
    {UNET, "{\"num_attention_heads\": 3}", "num_attention_heads", "a divisor of its 320 channels"},
    {UNET, "{\"num_attention_heads\": [5,10,20,7]}", "num_attention_heads", "7 at level 3"},
    {UNET, "{\"num_attention_heads\": [5,10,20]}", "num_attention_heads", "a list of 4 members"},
    {UNET, "{\"num_attention_heads\": null}", "num_attention_heads", "a list of 4 members"},
    {UNET, "{\"cross_attention_dim\": [1024,1024,1024,512]}", "cross_attention_dim", "the same width"},
    {UNET, "{\"cross_attention_dim\": {}}", "cross_attention_dim", "a list of 4 members"},
    {UNET, "{\"transformer_layers_per_block\": [1,1,1]}", "transformer_layers_per_block",
     "one entry per level"},
    {UNET, "{\"transformer_layers_per_block\": [1,[1,1],1,1]}", "transformer_layers_per_block[1]", "3 to 16"},
    {UNET, "{\"transformer_layers_per_block\": [1,1,1,[]]}", "transformer_layers_per_block[3]", "1 to 16"},
    {UNET, "{\"transformer_layers_per_block\": [[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1],1,1,1]}",
     "transformer_layers_per_block[0]", "3 to 16"},
    {UNET, "{\"transformer_layers_per_block\": \"1\"}", "transformer_layers_per_block[0]",
     "expected an integer"},
    {UNET, "{\"projection_class_embeddings_input_dim\": 512}", "projection_class_embeddings_input_dim",
     "3 times 'addition_time_embed_dim', which is 256"},
    {UNET, "{\"addition_time_embed_dim\": 1}", "addition_time_embed_dim", "an integer from 2"},
    {UNET, "{\"num_frames\": 0}", "num_frames", "an integer from 1"},
    {VAE, "{\"block_out_channels\": [128,256,512,500]}", "block_out_channels", "multiples of 32"},
    {VAE, "{\"down_block_types\": [\"DownEncoderBlock2D\"]}", "down_block_types", "a list of 4 members"},
    {VAE, "{\"-down_block_types\": 0}", "down_block_types", "a list of 4 members"},
    {VAE, "{\"down_block_types\": [\"A\",\"B\",\"C\",\"D\"]}", "down_block_types",
     "DownEncoderBlock2D at every level"},
    {VAE, "{\"layers_per_block\": [2,2,2,2]}", "layers_per_block", "expected an integer"},
    {VAE, "{\"latent_channels\": 0}", "latent_channels", "expected an integer"},
    {VAE, "{\"scaling_factor\": 0}", "scaling_factor", "expected a number"},
    {VAE, "{\"scaling_factor\": \"0.18215\"}", "scaling_factor", "expected a number"},
    {VAE, "{\"force_upcast\": 1}", "force_upcast", "true or false"},
    {CLIP, "{\"hidden_act\": \"gelu_new\"}", "hidden_act",
     "\"gelu_new\"; expected \"gelu\" or \"quick_gelu\""},
    {CLIP, "{\"hidden_act\": null}", "hidden_act", "\"gelu\" or"},
    {CLIP, "{\"num_attention_heads\": 17}", "num_attention_heads", "a divisor of 'hidden_size', 1280"},
    {CLIP, "{\"patch_size\": 225}", "patch_size", "at most 'image_size', 224"},
    {CLIP, "{\"image_size\": [224, 224]}", "image_size", "expected an integer"},
    {CLIP, "{\"layer_norm_eps\": -1e-5}", "layer_norm_eps", "expected a number"},
    {CLIP, "{\"num_hidden_layers\": 1000000}", "num_hidden_layers", "to 256"},
    {SCHED, "{\"prediction_type\": \"epsilon\"}", "prediction_type",
     "\"epsilon\"; expected \"v_prediction\""},
    {SCHED, "{\"-prediction_type\": 0}", "prediction_type", "missing; expected \"v_prediction\""},
    {SCHED, "{\"timestep_type\": \"discrete\"}", "timestep_type", "expected \"continuous\""},
    {SCHED, "{\"-timestep_type\": 0}", "timestep_type", "missing"},
    {SCHED, "{\"use_karras_sigmas\": false}", "use_karras_sigmas", "false; expected true"},
    {SCHED, "{\"-use_karras_sigmas\": 0}", "use_karras_sigmas", "missing"},
    {SCHED, "{\"use_karras_sigmas\": \"true\"}", "use_karras_sigmas", "true or false"},
    {SCHED, "{\"final_sigmas_type\": \"sigma_min\"}", "final_sigmas_type", "expected \"zero\""},
    {SCHED, "{\"timestep_spacing\": \"even\"}", "timestep_spacing",
     "\"leading\", \"linspace\" or \"trailing\""},
    {SCHED, "{\"use_exponential_sigmas\": true}", "use_exponential_sigmas", "expected false"},
    {SCHED, "{\"use_beta_sigmas\": true}", "use_beta_sigmas", "expected false"},
    {SCHED, "{\"rescale_betas_zero_snr\": true}", "rescale_betas_zero_snr", "expected false"},
    {SCHED, "{\"sigma_min\": 0}", "sigma_min", "expected a number"},
    {SCHED, "{\"-sigma_min\": 0}", "sigma_min", "missing"},
    {SCHED, "{\"sigma_max\": null}", "sigma_max", "missing"},
    {SCHED, "{\"sigma_min\": 800}", "sigma_min", "less than 'sigma_max', 700"},
};

static void test_bad_values(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        vd_config config;
        vd_error err = {0};
        char *json = patched(full, bad[i].file, bad[i].patch);
        double start = cpu_seconds();
        vd_code code = parse(bad[i].file, json, &config, &err);
        check_refusal(bad[i].patch, code, VD_ERR_DATA, &err, vd_config_files[bad[i].file], bad[i].reason,
                      cpu_seconds() - start);
        assert_non_null(strstr(err.message, bad[i].key));
        free(json);
    }
}

/* What is wrong before there are values, for every parser. */
static void test_bad_text(void **state) {
    (void)state;
    static const struct {
        const char *json, *reason;
    } cases[] = {
        {"", "not valid JSON"},
        {"[]", "not a JSON object"},
        {"3", "not valid JSON"},
        {"null", "not valid JSON"},
        {"{\"in_channels\": NaN}", "not valid JSON"},
        {"{\"sigma_min\": 1e400}", "not valid JSON"},
        {"{\"in_channels\": 9223372036854775808}", "not valid JSON"},
        {"{\"in_channels\": 8, \"in_channels\": 8}", "duplicate"},
        {"{} {}", "not valid JSON"},
        {"{\"in_channels\": 8,}", "not valid JSON"},
        {"{\"\xff\": 1}", "not valid JSON"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int file = UNET; file <= SCHED; file++) {
            vd_config config;
            vd_error err = {0};
            vd_code code = parse(file, cases[i].json, &config, &err);
            check_refusal(cases[i].json, code, VD_ERR_DATA, &err, vd_config_files[file], cases[i].reason, 0);
        }
}

static void test_full(void **state) {
    (void)state;
    vd_config c;
    vd_error err;
    if (vd_config_load(full, &c, &err) != VD_OK)
        fail_msg("%s", err.message);
    assert_int_equal(c.unet.in_channels, 8);
    assert_int_equal(c.unet.levels, 4);
    assert_int_equal(c.unet.channels[3], 1280);
    assert_true(c.unet.down_attention[0] && c.unet.down_attention[2] && !c.unet.down_attention[3]);
    assert_true(!c.unet.up_attention[0] && c.unet.up_attention[1] && c.unet.up_attention[3]);
    assert_int_equal(c.unet.layers[3], 2);
    assert_int_equal(c.unet.heads[1], 10);
    assert_int_equal(c.unet.transformer_layers[2][2], 1);
    assert_int_equal(c.unet.cross_attention_dim, 1024);
    assert_int_equal(c.unet.addition_time_embed_dim, 256);
    assert_int_equal(c.unet.projection_input_dim, 768);
    assert_int_equal(c.unet.num_frames, 25);
    assert_int_equal(c.vae.layers, 2);
    assert_int_equal(vd_vae_factor(&c.vae), 8);
    assert_true(c.vae.scaling_factor == 0.18215 && c.vae.force_upcast);
    assert_int_equal(c.clip.layers, 32);
    assert_int_equal(c.clip.patch_size, 14);
    assert_int_equal(c.clip.act, VD_ACT_GELU);
    assert_true(c.clip.layer_norm_eps == 1e-5 && c.clip.image_mean[0] == 0.48145466f);
    assert_true(c.clip.image_std[2] == 0.27577711f);
    assert_true(c.scheduler.sigma_min == 0.002 && c.scheduler.sigma_max == 700 &&
                c.scheduler.leading_spacing);
}

static void test_odd(void **state) {
    (void)state;
    vd_config c;
    vd_error err;
    if (vd_config_load(odd, &c, &err) != VD_OK)
        fail_msg("%s", err.message);
    assert_int_equal(c.unet.layers[1], 2);
    assert_int_equal(c.unet.layers[2], 1);
    assert_int_equal(c.unet.transformer_layers[0][1], 1);
    assert_int_equal(c.unet.transformer_layers[1][1], 2);
    assert_int_equal(c.unet.transformer_layers[2][0], 2);
    assert_int_equal(c.unet.transformer_layers[2][1], 1);
    assert_int_equal(c.vae.layers, 3);
    assert_int_equal(vd_vae_factor(&c.vae), 4);
}

/* Missing keys take the defaults of the reference's classes (svd-spec.md 2.2 to 2.5). */
static void test_defaults(void **state) {
    (void)state;
    vd_config c, expected;
    vd_error err;
    assert_int_equal(vd_config_load(full, &expected, &err), VD_OK);
    assert_int_equal(parse(UNET, "{}", &c, &err), VD_OK);
    assert_memory_equal(&c.unet, &expected.unet, sizeof c.unet);
    assert_int_equal(parse(VAE, "{}", &c, &err), VD_OK);
    assert_int_equal(c.vae.levels, 1);
    assert_int_equal(c.vae.channels[0], 64);
    assert_int_equal(c.vae.layers, 1);
    assert_true(c.vae.force_upcast && c.vae.scaling_factor == 0.18215);
    assert_int_equal(parse(CLIP, "{}", &c, &err), VD_OK);
    assert_int_equal(c.clip.act, VD_ACT_QUICK_GELU);
    assert_int_equal(c.clip.hidden, 768);
    assert_int_equal(c.clip.patch_size, 32);
    char *json = patched(full, SCHED, "{\"-timestep_spacing\": 0}");
    assert_int_equal(parse(SCHED, json, &c, &err), VD_OK);
    assert_false(c.scheduler.leading_spacing);
    free(json);
}

/* Unusual, but the reference runs it. */
static void test_odd_but_legal(void **state) {
    (void)state;
    static const struct {
        int file;
        const char *patch;
    } cases[] = {
        {UNET, "{\"block_out_channels\": [32], \"down_block_types\": [\"DownBlockSpatioTemporal\"],"
               " \"up_block_types\": [\"UpBlockSpatioTemporal\"], \"num_attention_heads\": 32}"},
        {UNET, "{\"num_attention_heads\": 1, \"layers_per_block\": [1, 15, 1, 3]}"},
        {UNET, "{\"transformer_layers_per_block\": [[1,2,3],[1,2,3,4],2,[5]]}"},
        {UNET, "{\"_name_or_path\": \"x\", \"sample_size\": null, \"something_new\": [{}]}"},
        {VAE, "{\"layers_per_block\": 3, \"force_upcast\": false, \"sample_size\": 32}"},
        {VAE, "{\"scaling_factor\": 1}"},
        {CLIP, "{\"hidden_act\": \"quick_gelu\", \"patch_size\": 15}"},
        {SCHED, "{\"timestep_spacing\": \"trailing\", \"sigma_max\": 80, \"final_sigmas_type\": \"zero\"}"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        vd_config c;
        vd_error err;
        char *json = patched(full, cases[i].file, cases[i].patch);
        if (parse(cases[i].file, json, &c, &err) != VD_OK)
            fail_msg("%s: %s", cases[i].patch, err.message);
        free(json);
    }
}

static void copy_folder(const folder *f, const char *configs) {
    for (int i = 0; i < VD_CONFIG_FILES; i++) {
        char *json = patched(configs, i, "{}");
        folder_text(f, vd_config_files[i], json);
        free(json);
    }
}

/* Files that are each fine and do not belong together, and the two files that have no parser of their own. */
static void test_bad_folders(void **state) {
    (void)state;
    static const struct {
        int file;
        const char *patch, *reason;
    } cases[] = {
        {VD_CONFIG_INDEX, "{\"_class_name\": \"StableDiffusionPipeline\"}",
         "expected \"StableVideoDiffusionPipeline\""},
        {VD_CONFIG_INDEX, "{\"unet\": [\"diffusers\", \"UNet2DConditionModel\"]}",
         "'unet' is \"UNet2DConditionModel\""},
        {VD_CONFIG_INDEX, "{\"vae\": \"AutoencoderKL\"}", "'vae' is missing"},
        {VD_CONFIG_INDEX, "{\"-scheduler\": 0}", "'scheduler' is missing"},
        {VD_CONFIG_IMAGE, "{\"image_mean\": [0, 0]}", "three numbers"},
        {VD_CONFIG_IMAGE, "{\"image_mean\": [0, 0, \"0\"]}", "three numbers"},
        {VD_CONFIG_IMAGE, "{\"image_std\": [1, 1, 0]}", "three numbers above 0"},
        {VAE, "{\"latent_channels\": 8}", "'in_channels' of unet is 8; expected 16"},
        {VAE, "{\"in_channels\": 4}", "'in_channels' of vae is 4; expected 3"},
        {VAE, "{\"out_channels\": 1}", "'out_channels' of vae is 1; expected 3"},
        {CLIP, "{\"num_channels\": 1}", "'num_channels' of image_encoder is 1"},
        {CLIP, "{\"projection_dim\": 768}", "'cross_attention_dim' of unet is 1024; expected 768"},
    };
    folder f = folder_make();
    copy_folder(&f, full);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        vd_config c;
        vd_error err = {0};
        char *json = patched(full, cases[i].file, cases[i].patch), *same = patched(full, cases[i].file, "{}");
        folder_text(&f, vd_config_files[cases[i].file], json);
        double start = cpu_seconds();
        vd_code code = vd_config_load(f.path, &c, &err);
        check_refusal(cases[i].patch, code, VD_ERR_DATA, &err, f.path, cases[i].reason,
                      cpu_seconds() - start);
        folder_text(&f, vd_config_files[cases[i].file], same);
        free(json);
        free(same);
    }
    folder_remove(&f);
}

static void test_missing_files(void **state) {
    (void)state;
    folder f = folder_make();
    vd_config c;
    vd_error err = {0};
    copy_folder(&f, full);
    assert_int_equal(vd_config_load(f.path, &c, &err), VD_OK);
    for (int i = 0; i < VD_CONFIG_FILES; i++) {
        assert_int_equal(rename(folder_path(&f, vd_config_files[i]), folder_path(&f, "aside")), 0);
        vd_code code = vd_config_load(f.path, &c, &err);
        check_refusal("missing", code, VD_ERR_NO_INPUT, &err, vd_config_files[i], "No such file", 0);
        assert_int_equal(rename(folder_path(&f, "aside"), folder_path(&f, vd_config_files[i])), 0);
    }
    folder_remove(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bad_values),  cmocka_unit_test(test_bad_text),
        cmocka_unit_test(test_full),        cmocka_unit_test(test_odd),
        cmocka_unit_test(test_defaults),    cmocka_unit_test(test_odd_but_legal),
        cmocka_unit_test(test_bad_folders), cmocka_unit_test(test_missing_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
