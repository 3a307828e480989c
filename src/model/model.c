#include "model/model.h"

#include "base/file.h"

#include <stdio.h>
#include <stdlib.h>

static vd_code open_component(vd_model *m, vd_component c, const char *folder, vd_error *err) {
    static const struct {
        const char *folder, *stem;
    } places[] = {[VD_CLIP] = {"image_encoder", "model"},
                  [VD_VAE] = {"vae", "diffusion_pytorch_model"},
                  [VD_UNET] = {"unet", "diffusion_pytorch_model"}};
    char path[VD_PATH_CAP];
    if (snprintf(path, sizeof path, "%s/%s", folder, places[c].folder) >= (int)sizeof path)
        return vd_fail(err, VD_ERR_NO_INPUT, "model '%.200s...': the path is too long", folder);
    VD_TRY(vd_store_open(path, places[c].stem, &m->stores[c], err));
    m->weights[c] = vd_weights_new(m->stores[c]);
    return m->weights[c] ? VD_OK : vd_fail_memory(err, "a model", sizeof *m);
}

static vd_code open_all(vd_model *m, const char *folder, vd_error *err) {
    VD_TRY(vd_config_load(folder, &m->config, err));
    vd_unet_walk(&m->config.unet, &m->blocks);
    for (vd_component c = 0; c < VD_COMPONENTS; c++)
        VD_TRY(open_component(m, c, folder, err));
    return VD_OK;
}

vd_code vd_model_open(const char *folder, const vd_log *log, vd_model **out, vd_error *err) {
    vd_model *m = calloc(1, sizeof *m);
    if (!m)
        return vd_fail_memory(err, "a model", sizeof *m);
    vd_code code = open_all(m, folder, err);
    if (code != VD_OK) {
        vd_model_close(m);
        return code;
    }
    vd_log_line(log, VD_LOG_DEBUG,
                "model '%s': UNet of %d levels and %d blocks, VAE of %d levels, CLIP of %d layers", folder,
                m->config.unet.levels, m->blocks.count, m->config.vae.levels, m->config.clip.layers);
    *out = m;
    return VD_OK;
}

void vd_model_close(vd_model *m) {
    if (!m)
        return;
    for (vd_component c = 0; c < VD_COMPONENTS; c++) {
        vd_weights_free(m->weights[c]);
        vd_store_close(m->stores[c]);
    }
    free(m);
}

const vd_config *vd_model_config(const vd_model *m) {
    return &m->config;
}

void vd_model_warn_unused(const vd_model *m, const vd_log *log) {
    for (vd_component c = 0; c < VD_COMPONENTS; c++)
        vd_store_warn_unused(m->stores[c], log);
}
