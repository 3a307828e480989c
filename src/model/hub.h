/* From what the user typed after --model to a folder: a folder itself, or ORG/NAME[@REV] in the local Hugging
 * Face cache (HF_HUB_CACHE, else HF_HOME/hub, else XDG_CACHE_HOME or ~/.cache + huggingface/hub). Never
 * downloads. */
#ifndef VD_MODEL_HUB_H
#define VD_MODEL_HUB_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>

/* Writes the folder that holds model_index.json. VD_ERR_NO_INPUT names what was looked for and prints the
 * command that fetches it. */
vd_code vd_hub_resolve(const char *model, char *folder, size_t cap, vd_error *err);
/* Whether ORG/NAME lies in the cache. */
bool vd_hub_has(const char *model);

#endif
