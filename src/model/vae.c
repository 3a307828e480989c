/* What both halves of the VAE share. */
#include "model/model.h"

const float vd_vae_eps = 1e-6f;

/* Names of the projections: old files spell them as before diffusers renamed them (3.1). */
static const char *const names[] = {"to_q", "to_k", "to_v"}, *const old_names[] = {"query", "key", "value"};

vd_value vd_vae_attention(vd_net *n, vd_name at, vd_value x) {
    int64_t c = vd_program_shape(n->p, x).c;
    bool old = vd_weights_has(n->w, vd_name_in(at, "query.weight"));
    vd_value mixed = vd_net_self_attention(
        n, at,
        &(vd_self_attention){
            .x = x,
            .norm = vd_net_group_norm(n, vd_name_in(at, "group_norm."), c, vd_vae_eps, false),
            .names = old ? old_names : names,
            .biased = true,
            .heads = 1,
        });
    vd_layer out = vd_net_dense(n, vd_name_in(at, old ? "proj_attn." : "to_out.0."), c, c);
    return vd_program_linear(n->p,
                             VD_LINEAR(.src = mixed, .weight = out.weight, .bias = out.bias, .residual = x));
}
