/* A model folder of full size that holds no weights: programs can be built from it, not run. */
#ifndef VD_TESTS_MODEL_HOLLOW_H
#define VD_TESTS_MODEL_HOLLOW_H

#include "model/folder.h"
#include "must.h"

#include "base/text.h"
#include "model/config.h"
#include "model/inventory.h"

/* A safetensors file of these tensors, less the one called `without`, whose data is a hole. */
static inline void hollow_write(const char *path, const vd_inventory *tensors, const char *without) {
    vd_text header = {0};
    uint64_t offset = 0;
    for (int i = 0; i < tensors->count; i++) {
        const vd_named_shape *s = &tensors->items[i];
        if (strcmp(s->name, without) == 0)
            continue;
        uint64_t end = offset + 2 * (uint64_t)vd_shape_elements(s);
        vd_text_add(&header, "%s\"%s\":{\"dtype\":\"F16\",\"shape\":[", offset ? "," : "{", s->name);
        for (int k = 0; k < s->rank; k++)
            vd_text_add(&header, "%s%lld", k ? "," : "", (long long)s->dims[k]);
        vd_text_add(&header, "],\"data_offsets\":[%llu,%llu]}", (unsigned long long)offset,
                    (unsigned long long)end);
        offset = end;
    }
    vd_text_add(&header, "}");
    assert_false(header.failed);
    uint64_t length = header.length;
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(&length, sizeof length, 1, file), 1);
    assert_int_equal(fwrite(header.text, 1, header.length, file), header.length);
    assert_int_equal(fclose(file), 0);
    assert_int_equal(truncate(path, (off_t)(sizeof length + header.length + offset)), 0);
    vd_text_free(&header);
}

/* A model folder that is complete but for the bytes of its weights. */
typedef struct hollow {
    folder where;
    vd_inventory tensors[3];
} hollow;

static const char *const hollow_files[] = {"unet/diffusion_pytorch_model.safetensors",
                                           "vae/diffusion_pytorch_model.safetensors",
                                           "image_encoder/model.safetensors"};

static inline hollow hollow_make(const char *configs) {
    hollow h = {.where = folder_make()};
    for (int i = 0; i < VD_CONFIG_FILES; i++) {
        char from[128], *text;
        size_t length;
        snprintf(from, sizeof from, "%s/%s", configs, vd_config_files[i]);
        must(vd_file_read(from, "config", 1 << 20, &text, &length, err));
        must(vd_make_parents(folder_path(&h.where, vd_config_files[i]), err));
        folder_write(&h.where, vd_config_files[i], text, length);
        free(text);
    }
    vd_config config;
    must(vd_config_load(configs, &config, err));
    must(vd_inventory_unet(&config.unet, &h.tensors[0], err));
    must(vd_inventory_vae(&config.vae, &h.tensors[1], err));
    must(vd_inventory_clip(&config.clip, &h.tensors[2], err));
    for (int i = 0; i < 3; i++)
        hollow_write(folder_path(&h.where, hollow_files[i]), &h.tensors[i], "");
    return h;
}

static inline void hollow_remove(hollow *h) {
    for (int i = 0; i < 3; i++)
        vd_inventory_free(&h->tensors[i]);
    folder_remove(&h->where);
}

#endif
