/* Names, shapes and values of dummy models against the reference's own (tests/golden/dummy_model.py). */
#include "model/config.h"
#include "model/dummy.h"
#include "model/folder.h"
#include "model/inventory.h"
#include "model/store.h"

#include "base/text.h"

#include <zlib.h>

static vd_code list(const char *component, const vd_config *c, vd_inventory *out, vd_error *err) {
    if (strcmp(component, "unet") == 0)
        return vd_inventory_unet(&c->unet, out, err);
    if (strcmp(component, "vae") == 0)
        return vd_inventory_vae(&c->vae, out, err);
    return vd_inventory_clip(&c->clip, out, err);
}

static void load(const char *model, vd_config *c) {
    char path[128];
    vd_error err;
    snprintf(path, sizeof path, "tests/golden/configs/%s", model);
    if (vd_config_load(path, c, &err) != VD_OK)
        fail_msg("%s", err.message);
}

/* crc32 of a line "name [dim, dim]" per tensor. */
static unsigned sum(const vd_inventory *inventory, int64_t *parameters) {
    vd_text text = {0};
    *parameters = 0;
    for (int i = 0; i < inventory->count; i++) {
        const vd_named_shape *item = &inventory->items[i];
        *parameters += vd_shape_elements(item);
        vd_text_add(&text, "%s [", item->name);
        for (int d = 0; d < item->rank; d++)
            vd_text_add(&text, "%s%lld", d ? ", " : "", (long long)item->dims[d]);
        vd_text_add(&text, "]\n");
    }
    assert_false(text.failed);
    unsigned crc = (unsigned)crc32(0, (const Bytef *)text.text, (uInt)text.length);
    vd_text_free(&text);
    return crc;
}

static void test_inventory(void **state) {
    (void)state;
    FILE *golden = fopen("tests/golden/inventory.txt", "r");
    assert_non_null(golden);
    char model[16], component[16];
    int count, lines = 0;
    long long parameters;
    unsigned crc;
    while (fscanf(golden, "%15s %15s %d %lld %x", model, component, &count, &parameters, &crc) == 5) {
        vd_config config;
        vd_inventory inventory;
        vd_error err;
        int64_t found;
        load(model, &config);
        assert_int_equal(list(component, &config, &inventory, &err), VD_OK);
        unsigned found_crc = sum(&inventory, &found);
        if (inventory.count != count || found != parameters || found_crc != crc)
            fail_msg("%s %s: %d tensors, %lld parameters", model, component, inventory.count,
                     (long long)found);
        vd_inventory_free(&inventory);
        lines++;
    }
    fclose(golden);
    assert_int_equal(lines, 9);
}

/* The files equal, byte for byte, what the reference saves with the same values. */
static void test_files(void **state) {
    (void)state;
    static const struct {
        const char *model;
        vd_st_dtype dtype;
        const char *file;
        unsigned crc;
    } golden[] = {
        {"tiny", VD_ST_F16, "unet/diffusion_pytorch_model.safetensors", 0xaec79e15},
        {"tiny", VD_ST_F16, "vae/diffusion_pytorch_model.safetensors", 0x23d7ac20},
        {"tiny", VD_ST_F16, "image_encoder/model.safetensors", 0xafaee01b},
        {"odd", VD_ST_F32, "unet/diffusion_pytorch_model.safetensors", 0x864b7c54},
        {"odd", VD_ST_F32, "vae/diffusion_pytorch_model.safetensors", 0xa726918b},
        {"odd", VD_ST_F32, "image_encoder/model.safetensors", 0xe60926bf},
    };
    folder f = folder_make();
    for (size_t i = 0; i < sizeof golden / sizeof *golden; i++) {
        char configs[128], *bytes;
        size_t count;
        vd_error err;
        snprintf(configs, sizeof configs, "tests/golden/configs/%s", golden[i].model);
        if ((i % 3 == 0 && vd_dummy_write(configs, f.path, 7, golden[i].dtype, &err) != VD_OK) ||
            vd_file_read(folder_path(&f, golden[i].file), "weights", 1 << 26, &bytes, &count, &err) != VD_OK)
            fail_msg("%s", err.message);
        unsigned crc = (unsigned)crc32(0, (const Bytef *)bytes, (uInt)count);
        if (crc != golden[i].crc)
            fail_msg("%s %s: crc %08x, expected %08x", golden[i].model, golden[i].file, crc, golden[i].crc);
        free(bytes);
    }
    folder_remove(&f);
}

/* What is written is a whole model: configurations load, every tensor of the inventory is found, none is
 * left. */
static void test_complete(void **state) {
    (void)state;
    static const char *const components[][2] = {
        {"unet", "diffusion_pytorch_model"}, {"vae", "diffusion_pytorch_model"}, {"image_encoder", "model"}};
    folder f = folder_make();
    vd_config config;
    vd_error err;
    assert_int_equal(vd_dummy_write("tests/golden/configs/tiny", f.path, 1, VD_ST_BF16, &err), VD_OK);
    assert_int_equal(vd_config_load(f.path, &config, &err), VD_OK);
    for (int i = 0; i < 3; i++) {
        vd_store *store;
        vd_inventory inventory;
        vd_tensor_ref ref;
        assert_int_equal(vd_store_open(folder_path(&f, components[i][0]), components[i][1], &store, &err),
                         VD_OK);
        assert_int_equal(list(components[i][0], &config, &inventory, &err), VD_OK);
        for (int t = 0; t < inventory.count; t++) {
            const vd_named_shape *item = &inventory.items[t];
            if (vd_store_find(store, item->name, item->rank, item->dims, &ref, &err) != VD_OK)
                fail_msg("%s", err.message);
        }
        assert_int_equal(vd_safetensors_count(ref.file), inventory.count);
        vd_inventory_free(&inventory);
        vd_store_close(store);
    }
    folder_remove(&f);
}

static void test_refuses(void **state) {
    (void)state;
    folder f = folder_make();
    vd_error err;
    assert_int_equal(vd_dummy_write(f.path, f.path, 1, VD_ST_F32, &err), VD_ERR_NO_INPUT);
    assert_int_equal(vd_dummy_write("tests/golden/configs/tiny", f.path, 1, VD_ST_U8, &err), VD_ERR_INTERNAL);
    assert_int_equal(vd_dummy_write("tests/golden/configs/tiny", "/proc/none", 1, VD_ST_F32, &err),
                     VD_ERR_CANNOT_CREATE);
    folder_remove(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_inventory),
        cmocka_unit_test(test_files),
        cmocka_unit_test(test_complete),
        cmocka_unit_test(test_refuses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
