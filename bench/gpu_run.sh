#!/bin/sh
# In a bundle (gpu_bundle.sh): every program is a link to this, which runs the one of that name in bin with the bundle's
# libraries, and with NVIDIA's from the toolkit or from Python's packages.
set -eu
build=$(dirname "$(readlink -f "$0")")
nvidia=$("${PYTHON:-python3}" - <<'EOF' || :
import glob, sys
places = [f"{place}/nvidia/*/lib" for place in sys.path if place] + ["/usr/local/cuda*/lib64"]
print(":".join(sorted({folder for place in places for folder in glob.glob(place)})))
EOF
)
LD_LIBRARY_PATH=$build/lib:$nvidia${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
export LD_LIBRARY_PATH
exec "$build/bin/$(basename "$0")" "$@"
