#include "app/options.h"

#include <string.h>

static const char introduction[] =
    "Usage: vdpp [options]        make videos from images with Stable Video Diffusion\n"
    "       vdpp plan [options]   how the work would be spread over the devices, and how long it would take\n"
    "       vdpp tune [options]   try the ways to compute such videos on the GPU, and keep the fastest\n"
    "       vdpp devices          what devices there are, and how states get from one to another\n"
    "       vdpp doctor           what a run needs, whether it is there, and what to do if not\n"
    "\n"
    "Examples:\n"
    "  vdpp --gpus 7 --samples 10                    ten videos of the sample image on seven devices\n"
    "  vdpp -i fox.jpg -m ORG/NAME -W 1024 -H 576 -o out/{stem}-s{seed}.mp4\n"
    "  vdpp --jobs jobs.jsonl --parallel wrap --report report.json\n"
    "  vdpp plan --gpus 7 --samples 10 --steps 28 --parallel wrap\n";

static const char conclusion[] = "\n"
                                 "Defaults stand in brackets. Options but --latent-shape can be given as "
                                 "variables too: VDPP_NOISE_AUG=0.1.\n"
                                 "Exit codes: 0 all made, 1 some failed, 64 usage, 65 bad model or input, 66 "
                                 "input or model missing, 69 no such\n"
                                 "device or too little memory, 70 internal, 73 cannot create output, 74 I/O, "
                                 "75 interrupted, 130 interrupted twice.\n";

static void print_row(const vd_option *o, FILE *file) {
    char left[128], letter[4] = "  ";
    if (o->letter)
        snprintf(letter, sizeof letter, "-%c", o->letter);
    int width = snprintf(left, sizeof left, "  %s%s --%s%s%s", letter, o->letter ? "," : " ", o->name,
                         o->value ? " " : "", o->value ? o->value : "");
    fprintf(file, width <= 30 ? "%-32s" : "%s\n                                ", left);
    fputs(o->help, file);
    if (o->alias)
        fprintf(file, "; also --%s", o->alias);
    fputc('\n', file);
}

void vd_options_print_help(FILE *file) {
    const char *group = "";
    fputs(introduction, file);
    for (const vd_option *o = vd_option_table; o < vd_option_table + vd_option_count; o++) {
        if (!o->help)
            continue;
        if (strcmp(group, o->group) != 0)
            fprintf(file, "\n%s\n", group = o->group);
        print_row(o, file);
    }
    fputs(conclusion, file);
}
