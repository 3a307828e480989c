#include "app/option_values.h"
#include "app/options.h"

#define RUN VD_IN_RUN
#define RUN_JOB (VD_IN_RUN | VD_IN_JOB)
#define RUN_PLAN (VD_IN_RUN | VD_IN_PLAN)
#define RUN_PLAN_JOB (VD_IN_RUN | VD_IN_PLAN | VD_IN_JOB)
#define RUN_DEVICES_DOCTOR (VD_IN_RUN | VD_IN_DEVICES | VD_IN_DOCTOR)
#define ONE_SHOT (RUN_DEVICES_DOCTOR | VD_IN_PLAN | VD_NO_VARIABLE)
#define OF(member) offsetof(vd_options, member)
#define LIMIT VD_SAMPLE_LIMIT

/* Columns: group, letter, name, alias, value, values, where, reader, field, min, max, choices, help. */
const vd_option vd_option_table[] = {
    {"Input", 'i', "image", NULL, "FILE", 1, RUN, vd_read_more_images, 0, 0, 0, NULL,
     "PNG or JPEG; a folder of them, or @LIST, a file with a path per line; repeatable (a sample image)"},
    {"Input", 0, "image", NULL, "FILE", 1, VD_IN_JOB, vd_read_image, OF(request.job.image), 0, 0, NULL, NULL},
    {"Input", 'n', "samples", "num-samples", "N", 1, RUN_PLAN_JOB, vd_read_int, OF(request.samples), 1, LIMIT,
     NULL, "videos per image; sample k has seed + k (1)"},
    {"Input", 's', "seed", NULL, "N", 1, RUN_JOB | VD_TEXT_TOO, vd_read_seed, 0, 0, 1, NULL,
     "64-bit seed of the first sample; -1 draws one and prints it (0)"},
    {"Input", 0, "jobs", NULL, "FILE", 1, RUN, vd_read_text, OF(jobs), 0, 0, NULL,
     "JSON Lines, one job per line with these options' names as keys; - reads standard input"},
    {"Input", 0, "fit", NULL, "HOW", 1, RUN_JOB, vd_read_choice, OF(request.job.fit), 0, 0,
     "crop|stretch|pad", "how an image of another shape meets the video's: crop, stretch or pad (crop)"},

    {"Model", 'm', "model", NULL, "DIR|ORG/NAME", 1, RUN | VD_IN_DOCTOR, vd_read_text, OF(model), 0, 0, NULL,
     "diffusers folder, or a model in the local Hugging Face cache (the sample model)"},
    {"Model", 0, "dtype", NULL, "TYPE", 1, RUN, vd_read_choice, OF(dtype), 0, 0, "fp32|fp16|bf16",
     "storage of weights and activations: fp32, fp16 or bf16 (fp16 on GPUs, fp32 on the CPU)"},

    {"Video", 'W', "width", NULL, "PX", 1, RUN_JOB, vd_read_side, OF(request.job.width), 8, 8192, NULL,
     "multiple of 8 (the model's, else 1024)"},
    {"Video", 'H', "height", NULL, "PX", 1, RUN_JOB, vd_read_side, OF(request.job.height), 8, 8192, NULL,
     "multiple of 8 (the model's, else 576)"},
    {"Video", 0, "frames", "num-frames", "N", 1, RUN_JOB, vd_read_int, OF(request.job.frames), 1, 1024, NULL,
     "frames per video (the model's)"},
    {"Video", 0, "steps", "total-steps", "N", 1, RUN_PLAN_JOB, vd_read_int, OF(request.job.steps), 1, 1000,
     NULL, "denoising steps (25)"},
    {"Video", 0, "fps", NULL, "N", 1, RUN_JOB, vd_read_double, OF(request.job.fps), 1, 1000, NULL,
     "frames per second; the model is told one less (7)"},
    {"Video", 0, "out-fps", NULL, "N", 1, RUN_JOB, vd_read_double, OF(request.job.out_fps), 0.1, 1000, NULL,
     "frames per second of the file only (--fps)"},
    {"Video", 0, "motion", "motion-bucket-id", "N", 1, RUN_JOB, vd_read_int_or_zero, OF(request.job.motion),
     0, 1023, NULL, "amount of motion (127)"},
    {"Video", 0, "noise-aug", "noise-aug-strength", "X", 1, RUN_JOB, vd_read_double_or_zero,
     OF(request.job.noise_aug), 0, 10, NULL, "noise on the image: more motion, less likeness (0.02)"},
    {"Video", 0, "guidance", "guidance-scale", "MIN:MAX", 1, RUN_JOB | VD_TEXT_TOO, vd_read_guidance, 0, 0,
     100, NULL, "guidance from the first frame to the last; X means 1:X, 1 is none (1:3)"},
    {"Video", 0, "decode-chunk", NULL, "N", 1, RUN_JOB, vd_read_int, OF(request.job.decode_chunk), 1, 1024,
     NULL, "frames decoded at once; fewer need less memory (all)"},
    {"Video", 0, "latent-shape", NULL, "B C F H W", 5, RUN | VD_NO_VARIABLE, vd_read_latent_shape,
     OF(latent_shape), 0, 0, NULL, "latents only, B of this shape per sample: no image, no decoding"},

    {"Devices", 0, "gpus", NULL, "N|LIST", 1, RUN_PLAN, vd_read_ints, OF(gpus), 0, 1023, NULL,
     "how many devices, or their numbers as in 0,2,5 (all GPUs; without any one per CPU, at most 8)"},
    {"Devices", 0, "device", NULL, "KIND", 1, RUN_DEVICES_DOCTOR, vd_read_choice, OF(device), 0, 0,
     "auto|cuda|cpu", "auto, cuda or cpu (auto)"},
    {"Devices", 0, "devices", NULL, "LIST", 1, RUN, vd_read_text, OF(devices), 0, 0, NULL,
     "devices by name, as in cuda:0,cuda:1 or cpu:0,cpu:1; cuda:0,cuda:0 puts two stages on one GPU"},
    {"Devices", 0, "parallel", NULL, "MODE", 1, RUN_PLAN, vd_read_choice, OF(mode), 0, 0,
     "pipeline|data|wrap|auto", "how work is spread: pipeline, data, wrap or auto (pipeline)"},
    {"Devices", 0, "goal", NULL, "GOAL", 1, RUN_PLAN, vd_read_choice, OF(goal), 0, 0,
     "makespan|latency|cadence", "what auto aims for: makespan, latency or cadence (makespan)"},
    {"Devices", 0, "split", NULL, "LIST", 1, RUN_PLAN, vd_read_ints, OF(split), 0, 1000, NULL,
     "steps per device of a pipeline, as in 4,4,4,4,3,3,3 (by cost)"},
    {"Devices", 0, "p2p", NULL, "HOW", 1, RUN | VD_IN_DEVICES, vd_read_choice, OF(p2p), 0, 0, "auto|on|off",
     "direct copies between GPUs; no effect on the CPU (auto)"},

    {"Output", 'o', "output", NULL, "TEMPLATE", 1, RUN_JOB, vd_read_text, OF(request.output), 0, 0, NULL,
     "file with {stem} {seed} {index} {gpus}; its extension picks the format (out/{stem}-s{seed})"},
    {"Output", 0, "output-dir", NULL, "DIR", 1, RUN | VD_IN_DOCTOR, vd_read_text, OF(output_dir), 0, 0, NULL,
     "folder for what --output names (out)"},
    {"Output", 0, "format", NULL, "LIST", 1, RUN, vd_read_formats, OF(formats), 0, 0, NULL,
     "several of mp4,gif,png,latents (mp4, or png in a build without FFmpeg)"},
    {"Output", 'y', "overwrite", NULL, NULL, 0, RUN, vd_read_switch, OF(overwrite), 0, 0, NULL,
     "replace files that exist"},
    {"Output", 0, "dump", NULL, "DIR", 1, RUN, vd_read_text, OF(dump), 0, 0, NULL,
     "intermediate tensors of every sample as safetensors"},

    {"Observe", 0, "report", NULL, "FILE", 1, RUN, vd_read_text, OF(report), 0, 0, NULL,
     "what was made, how long it took, on what: JSON"},
    {"Observe", 0, "progress", NULL, "WHEN", 1, RUN, vd_read_choice, OF(progress), 0, 0, "auto|on|off",
     "rows per device: auto is on a terminal; off: a line per sample (auto)"},
    {"Observe", 0, "dry-run", NULL, NULL, 0, RUN, vd_read_switch, OF(dry_run), 0, 0, NULL,
     "print the plan of memory and schedule, make nothing"},
    {"Observe", 'q', "quiet", NULL, NULL, 0, RUN, vd_read_switch, OF(quiet), 0, 0, NULL, "errors only"},
    {"Observe", 'v', "verbose", NULL, NULL, 0, RUN, vd_read_switch, OF(verbose), 0, 0, NULL, "say more"},
    {"Observe", 0, "stall-timeout", NULL, "S", 1, RUN | VD_HIDDEN, vd_read_double, OF(stall_timeout_s), 0,
     1e6, NULL, NULL},
    {"Observe", 0, "cuda-module", NULL, "FILE", 1, RUN_DEVICES_DOCTOR | VD_HIDDEN, vd_read_text,
     OF(cuda_module), 0, 0, NULL, NULL},
    {"Observe", 0, "inject", NULL, "FAULT", 1, RUN | VD_HIDDEN, vd_read_text, OF(inject), 0, 0, NULL, NULL},

    {"Plan", 0, "cost", NULL, "encode=E,step=1,decode=D,handoff=H", 1, VD_IN_PLAN, vd_read_costs, OF(costs),
     0, 1e9, NULL, "for 'vdpp plan': costs in step-times (0, 1, 0, 0)"},
    {"Plan", 0, "format", NULL, "KIND", 1, VD_IN_PLAN | VD_IN_DEVICES | VD_NO_VARIABLE, vd_read_choice,
     OF(text_format), 0, 0, "text|json", "for 'vdpp plan' and 'vdpp devices': text or json (text)"},

    {"Misc", 'h', "help", NULL, NULL, 0, ONE_SHOT, vd_read_switch, OF(help), 0, 0, NULL, "this text"},
    {"Misc", 0, "version", NULL, NULL, 0, ONE_SHOT, vd_read_switch, OF(version), 0, 0, NULL,
     "version and build"},
};

_Static_assert(sizeof vd_option_table / sizeof *vd_option_table <= VD_OPTION_LIMIT, "room for every row");
const int vd_option_count = sizeof vd_option_table / sizeof *vd_option_table;
