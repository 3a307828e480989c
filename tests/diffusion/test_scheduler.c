#include "diffusion/noise.h"
#include "diffusion/scheduler.h"

#include "diffusion/golden.h"

#include <math.h>
#include <string.h>

static void tables_have_the_reference_bits(void **state) {
    (void)state;
    const json_t *row;
    size_t i;
    float sigmas[VD_STEPS_MAX + 1], timesteps[VD_STEPS_MAX];
    vd_error err;
    assert_true(json_array_size(json_object_get(golden, "schedules")) > 200);
    json_array_foreach(json_object_get(golden, "schedules"), i, row) {
        int steps = (int)whole(row, "steps");
        assert_int_equal(vd_schedule_tables(number(row, "sigma_min"), number(row, "sigma_max"), steps, sigmas,
                                            timesteps, &err),
                         VD_OK);
        assert_int_equal(crc(sigmas, sizeof(float) * (size_t)(steps + 1)), whole(row, "sigmas"));
        if (json_is_integer(json_object_get(row, "timesteps")))
            assert_int_equal(crc(timesteps, sizeof(float) * (size_t)steps), whole(row, "timesteps"));
        float leading = vd_schedule_init_scale(true, sigmas, steps);
        float trailing = vd_schedule_init_scale(false, sigmas, steps);
        assert_int_equal(crc(&leading, sizeof leading), whole(row, "scale_leading"));
        assert_int_equal(crc(&trailing, sizeof trailing), whole(row, "scale_trailing"));
    }
}

/* Appendix A of the specification, independent of the golden file. */
static void the_published_schedule_of_25_steps(void **state) {
    (void)state;
    float sigmas[26], timesteps[25];
    vd_error err;
    assert_int_equal(vd_schedule_tables(0.002, 700, 25, sigmas, timesteps, &err), VD_OK);
    assert_true(sigmas[0] == 700.0f && sigmas[12] == 15.5899677f && sigmas[24] == 0.00200000009f);
    assert_true(sigmas[25] == 0);
    assert_true(timesteps[0] == 1.63777006f && timesteps[17] == 0.0603788905f &&
                timesteps[24] == -1.55365205f);
}

static void impossible_schedules_are_refused(void **state) {
    (void)state;
    float sigmas[VD_STEPS_MAX + 1], timesteps[VD_STEPS_MAX];
    vd_error err;
    assert_int_equal(vd_schedule_tables(0.002, 700, 0, sigmas, timesteps, &err), VD_ERR_USAGE);
    assert_int_equal(vd_schedule_tables(0.002, 700, -3, sigmas, timesteps, &err), VD_ERR_USAGE);
    assert_int_equal(vd_schedule_tables(0.002, 700, VD_STEPS_MAX + 1, sigmas, timesteps, &err), VD_ERR_USAGE);
    assert_non_null(strstr(err.message, "--steps"));
    const double bad[][2] = {{0, 700}, {-1, 700}, {2, 1}, {NAN, 700}, {0.002, NAN}, {0.002, INFINITY}};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(vd_schedule_tables(bad[i][0], bad[i][1], 5, sigmas, timesteps, &err), VD_ERR_DATA);
    assert_int_equal(vd_schedule_tables(0.002, 700, VD_STEPS_MAX, sigmas, timesteps, &err), VD_OK);
}

static void ramps_have_the_reference_bits(void **state) {
    (void)state;
    const json_t *row;
    size_t i;
    float ramp[129];
    json_array_foreach(json_object_get(golden, "ramps"), i, row) {
        int frames = (int)whole(row, "frames");
        vd_guidance_ramp((float)number(row, "min"), (float)number(row, "max"), frames, ramp);
        assert_int_equal(crc(ramp, sizeof(float) * (size_t)frames), whole(row, "ramp"));
    }
}

static void check_draw(const json_t *row) {
    uint64_t seed = (uint64_t)whole(row, "seed");
    size_t pixel_count = (size_t)whole(row, "pixel_count"), latent_count = (size_t)whole(row, "latent_count");
    float *pixels = malloc(pixel_count * sizeof(float)), *latents = malloc(latent_count * sizeof(float));
    uint8_t *bytes = pattern(pixel_count);
    assert_true(pixels && latents);
    for (size_t i = 0; i < pixel_count; i++)
        pixels[i] = (float)bytes[i] / 255 * 2 - 1;
    vd_noise_draw(seed, (float)number(row, "strength"), pixels, pixel_count, latents, latent_count);
    assert_int_equal(crc(pixels, pixel_count * sizeof(float)), whole(row, "pixels"));
    assert_int_equal(crc(latents, latent_count * sizeof(float)), whole(row, "latents"));
    vd_noise_draw(seed, 0, NULL, 0, latents, latent_count);
    assert_int_equal(crc(latents, latent_count * sizeof(float)), whole(row, "latents_only"));
    free(bytes);
    free(latents);
    free(pixels);
}

static void draws_have_the_reference_bits(void **state) {
    (void)state;
    const json_t *row;
    size_t i;
    assert_true(json_array_size(json_object_get(golden, "draws")) > 0);
    json_array_foreach(json_object_get(golden, "draws"), i, row) check_draw(row);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tables_have_the_reference_bits),
        cmocka_unit_test(the_published_schedule_of_25_steps),
        cmocka_unit_test(impossible_schedules_are_refused),
        cmocka_unit_test(ramps_have_the_reference_bits),
        cmocka_unit_test(draws_have_the_reference_bits),
    };
    return cmocka_run_group_tests_name("scheduler", tests, golden_load, golden_free);
}
