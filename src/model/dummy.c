#include "model/dummy.h"

#include "base/file.h"
#include "base/half.h"
#include "base/rng.h"
#include "model/config.h"
#include "model/inventory.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool ends_with(const char *text, const char *end) {
    size_t a = strlen(text), b = strlen(end);
    return a >= b && strcmp(text + a - b, end) == 0;
}

static void draw(vd_rng *rng, const vd_named_shape *shape, float *out, size_t count) {
    float gain = 0.1f, offset = 0;
    bool embedding =
        ends_with(shape->name, "class_embedding") || ends_with(shape->name, "position_embedding.weight");
    if (ends_with(shape->name, "mix_factor"))
        gain = 1;
    else if (shape->rank > 1 && !embedding)
        gain = (float)(1 / sqrt((double)count / (double)shape->dims[0]));
    else if (!ends_with(shape->name, ".bias") && !embedding)
        offset = 1;
    vd_rng_normal_f32(rng, out, count);
    for (size_t i = 0; i < count; i++)
        out[i] = out[i] * gain + offset;
}

static void store(void *out, const float *in, size_t count, vd_st_dtype dtype) {
    uint16_t *half = out;
    if (dtype == VD_ST_F32)
        memcpy(out, in, count * sizeof *in);
    for (size_t i = 0; i < count && dtype != VD_ST_F32; i++)
        half[i] = dtype == VD_ST_F16 ? vd_f32_to_f16(in[i]) : vd_f32_to_bf16(in[i]);
}

/* All values of a component, one after the other, described by `tensors`. */
static void fill(const vd_inventory *inventory, uint64_t seed, vd_st_dtype dtype, float *scratch, char *data,
                 vd_st_out *tensors) {
    vd_rng rng;
    vd_rng_seed(&rng, seed);
    for (int i = 0; i < inventory->count; i++) {
        const vd_named_shape *shape = &inventory->items[i];
        size_t count = (size_t)vd_shape_elements(shape);
        draw(&rng, shape, scratch, count);
        store(data, scratch, count, dtype);
        tensors[i] = (vd_st_out){.name = shape->name, .dtype = dtype, .rank = shape->rank, .data = data};
        memcpy(tensors[i].dims, shape->dims, sizeof shape->dims);
        data += count * (dtype == VD_ST_F32 ? 4 : 2);
    }
}

static vd_code write_component(const char *path, const vd_inventory *inventory, uint64_t seed,
                               vd_st_dtype dtype, vd_error *err) {
    size_t total = 0, largest = 0;
    for (int i = 0; i < inventory->count; i++) {
        size_t count = (size_t)vd_shape_elements(&inventory->items[i]);
        total += count;
        largest = count > largest ? count : largest;
    }
    float *scratch = malloc(largest * sizeof *scratch);
    char *data = malloc(total * (dtype == VD_ST_F32 ? 4 : 2));
    vd_st_out *tensors = malloc((size_t)inventory->count * sizeof *tensors);
    vd_code status = VD_OK;
    if (scratch && data && tensors) {
        fill(inventory, seed, dtype, scratch, data, tensors);
        status = vd_safetensors_write(path, tensors, inventory->count, true, err);
    } else {
        status = vd_fail_memory(err, path, total * 4);
    }
    free(tensors);
    free(data);
    free(scratch);
    return status;
}

static vd_code copy_config(const char *from, const char *to, vd_error *err) {
    char *bytes;
    size_t count;
    VD_TRY(vd_file_read(from, "configuration", 1 << 20, &bytes, &count, err));
    vd_code status = vd_file_write(to, bytes, count, true, err);
    free(bytes);
    return status;
}

static vd_code list_component(int component, const vd_config *config, vd_inventory *out, vd_error *err) {
    if (component == 0)
        return vd_inventory_unet(&config->unet, out, err);
    return component == 1 ? vd_inventory_vae(&config->vae, out, err)
                          : vd_inventory_clip(&config->clip, out, err);
}

vd_code vd_dummy_write(const char *configs, const char *folder, uint64_t seed, vd_st_dtype dtype,
                       vd_error *err) {
    static const char *const files[] = {"unet/diffusion_pytorch_model.safetensors",
                                        "vae/diffusion_pytorch_model.safetensors",
                                        "image_encoder/model.safetensors"};
    enum { NAME_CAP = 64 }; /* room for the part of a path below the folder */
    char from[VD_PATH_CAP], to[VD_PATH_CAP];
    vd_config config;
    if (dtype > VD_ST_BF16)
        return vd_fail(err, VD_ERR_INTERNAL, "weights are F32, F16 or BF16");
    if (strlen(configs) + NAME_CAP > VD_PATH_CAP || strlen(folder) + NAME_CAP > VD_PATH_CAP)
        return vd_fail(err, VD_ERR_CANNOT_CREATE, "'%.200s...': path too long", folder);
    VD_TRY(vd_config_load(configs, &config, err));
    for (int i = 0; i < VD_CONFIG_FILES; i++) {
        snprintf(from, sizeof from, "%s/%s", configs, vd_config_files[i]);
        snprintf(to, sizeof to, "%s/%s", folder, vd_config_files[i]);
        VD_TRY(copy_config(from, to, err));
    }
    for (int i = 0; i < 3; i++) {
        vd_inventory inventory;
        VD_TRY(list_component(i, &config, &inventory, err));
        snprintf(to, sizeof to, "%s/%s", folder, files[i]);
        vd_code status = write_component(to, &inventory, seed + (uint64_t)i, dtype, err);
        vd_inventory_free(&inventory);
        VD_TRY(status);
    }
    return VD_OK;
}
