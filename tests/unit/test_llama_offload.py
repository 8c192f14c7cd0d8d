"""Whether llama-server computes on the GPU, told from what it lists and prints.

CPU lines were printed by the real server (commit 0c1e57098, --n-gpu-layers 999 --verbosity 4); those of a GPU are put
together from the format strings of the same commit. The log that claims layers on a GPU that it could not start is of
a user's report (ollama#7765), shortened.
"""

from __future__ import annotations

import pytest
from ansible.module_utils.llmfleet.engines import llama_offload
from ansible.module_utils.llmfleet.engines.base import DeviceError
from ansible.module_utils.llmfleet.timed_run import Answer

ON_CPU = """\
warning: no usable GPU found, --gpu-layers option will be ignored
warning: one possible reason is that llama.cpp was compiled without GPU support
warning: consult docs/build.md for compilation instructions
0.00.004.475 I srv  llama_server: initializing ...
0.00.006.227 I srv    load_model: loading model '/models/tiny.gguf'
0.00.007.170 I load_tensors: loading model tensors, this can take a while... (load_mode = mmap)
0.00.007.601 I load_tensors:   CPU_Mapped model buffer size =     0.49 MiB
0.00.013.282 I srv  llama_server: model loaded
"""
ON_GPU = """\
0.00.203.001 I ggml_cuda_init: found 1 CUDA devices (Total VRAM: 143771 MiB):
0.00.203.010 I   Device 0: NVIDIA H200, compute capability 9.0, VMM: yes, VRAM: 143771 MiB
0.00.310.475 I srv  llama_server: initializing ...
0.00.316.227 I srv    load_model: loading model '/models/tiny.gguf'
0.00.420.017 I llama_prepare_model_devices: using device CUDA0 (NVIDIA H200) (0000:19:00.0) - 143064 MiB free
0.00.428.170 I load_tensors: loading model tensors, this can take a while... (load_mode = mmap)
0.00.429.601 I load_tensors: offloading output layer to GPU
0.00.429.602 I load_tensors: offloading 2 repeating layers to GPU
0.00.429.603 I load_tensors: offloaded 3/3 layers to GPU
0.00.429.604 I load_tensors:   CPU_Mapped model buffer size =     0.11 MiB
0.00.429.605 I load_tensors:        CUDA0 model buffer size =     0.39 MiB
0.00.513.282 I srv  llama_server: model loaded
"""
LISTED = Answer(0, "Available devices:\n  CUDA0: NVIDIA H200 (143771 MiB, 143064 MiB free)\n")
NONE = Answer(0, "Available devices:\n  (none)\n")


def judge(log=ON_GPU, listing=LISTED, planned=llama_offload.ALL_LAYERS, fresh=True, variant=""):
    return llama_offload.judge(log, planned, listing, fresh=fresh, variant=variant)


def refusal(**case):
    with pytest.raises(DeviceError) as refused:
        judge(**case)
    diagnosis = refused.value.diagnosis
    assert all(diagnosis.values())
    assert "\n" not in "".join(diagnosis.values())
    return diagnosis


def test_all_layers_on_the_gpu():
    assert judge() == "3/3 layers on CUDA0 (NVIDIA H200)"


def test_the_log_alone_proves_it_when_nobody_was_asked():
    assert llama_offload.proven_by_log(ON_GPU)
    assert judge(listing=None, fresh=False) == "3/3 layers on CUDA0 (NVIDIA H200)"


def test_several_gpus_are_all_named():
    log = ON_GPU + "0.00.429.606 I load_tensors:        CUDA1 model buffer size =     0.19 MiB\n"
    rows = (
        "  CUDA0: NVIDIA GeForce RTX 3090 (24154 MiB, 23892 MiB free)\n  CUDA1: Tesla P40 (24451 MiB, 24000 MiB free)\n"
    )
    said = judge(log=log, listing=Answer(0, f"Available devices:\n{rows}"))
    assert said == "3/3 layers on CUDA0 (NVIDIA GeForce RTX 3090), CUDA1 (Tesla P40)"


def test_other_back_ends_and_names_with_brackets():
    log = ON_GPU.replace("CUDA0 (NVIDIA H200)", "SYCL0 (Intel(R) Arc(TM) A770 Graphics)").replace("CUDA0", "SYCL0")
    assert judge(log=log, listing=None, fresh=False) == "3/3 layers on SYCL0 (Intel(R) Arc(TM) A770 Graphics)"


def test_older_builds_say_it_in_other_words():
    log = (
        "llama_model_load_from_file_impl: using device CUDA0 (NVIDIA GeForce RTX 3090) - 23892 MiB free\n"
        "llm_load_tensors: offloading 61 repeating layers to GPU\n"
        "llm_load_tensors: offloaded 62/62 layers to GPU\n"
        "llm_load_tensors:        CPU buffer size =   499.50 MiB\n"
        "llm_load_tensors:      CUDA0 buffer size = 17284.05 MiB\n"
    )
    assert judge(log=log, listing=None, fresh=False) == "62/62 layers on CUDA0 (NVIDIA GeForce RTX 3090)"


def test_the_draft_model_is_not_counted():
    draft = ON_GPU.replace("offloaded 3/3", "offloaded 0/9").replace("CUDA0 model", "CPU model")
    assert judge(log=ON_GPU + draft).startswith("3/3 layers on CUDA0")


def test_the_cpu_image_is_named_as_the_cause():
    found = refusal(log=ON_CPU, listing=NONE, variant="cpu")
    assert found["cause"] == "the image was built for the CPU, and a GPU was planned"
    assert found["evidence"].startswith("warning: no usable GPU found")
    assert "llama_cpp_image_variant" in found["fix"]


def test_a_silent_fallback_of_an_image_that_says_nothing_about_itself():
    found = refusal(log=ON_CPU, listing=NONE)
    assert "computes on the CPU" in found["cause"]
    assert "fall back without a word" in found["fix"]


def test_the_fallback_is_known_from_the_log_before_anybody_asks():
    assert llama_offload.fell_back(ON_CPU)
    assert not llama_offload.fell_back(ON_GPU)
    assert "computes on the CPU" in refusal(log=ON_CPU, listing=None)["cause"]


def test_a_gpu_that_appeared_after_the_server_fell_back_does_not_count():
    assert "computes on the CPU" in refusal(log=ON_CPU)["cause"]


@pytest.mark.parametrize(
    ("why", "words"),
    [
        ("CUDA driver version is insufficient for CUDA runtime version", "driver is too old"),
        ("no CUDA-capable device is detected", "was given no GPU"),
        ("system has unsupported display driver / cuda driver combination", "do not match"),
        ("unknown error", "CUDA did not start: unknown error"),
    ],
)
@pytest.mark.parametrize("place", ["log", "listing"])
def test_what_cuda_says_is_the_cause(why, words, place):
    line = f"0.1 E ggml_cuda_init: failed to initialize CUDA: {why}\n"
    case = {"log": line + ON_CPU, "listing": NONE}
    if place == "listing":
        case = {"log": ON_CPU, "listing": Answer(0, NONE.out, line)}
    found = refusal(**case)
    assert words in found["cause"]
    assert found["evidence"] == line.strip()


def test_layers_that_are_said_to_be_on_a_gpu_that_did_not_start():
    log = (
        "ggml_cuda_init: failed to initialize CUDA: no CUDA-capable device is detected\n"
        "llm_load_tensors: offloading 28 repeating layers to GPU\n"
        "llm_load_tensors: offloaded 29/29 layers to GPU\n"
        "llm_load_tensors:        CPU buffer size =  1918.35 MiB\n"
    )
    assert "was given no GPU" in refusal(log=log, listing=NONE)["cause"]
    # even when the GPU is there now
    found = refusal(log=log)
    assert found["cause"] == "the model's weights are not on the GPU, whatever the count of layers says"
    assert "offloaded 29/29" in found["evidence"]
    assert "buffers: CPU" in found["evidence"]


def test_pinned_memory_of_the_host_is_not_the_gpu():
    log = ON_GPU.replace("       CUDA0 model", "   CUDA_Host model")
    assert "buffers: CPU_Mapped, CUDA_Host" in refusal(log=log)["evidence"]


def test_too_few_layers_are_refused_and_planned_ones_accepted():
    log = ON_GPU.replace("offloaded 3/3", "offloaded 2/3")
    found = refusal(log=log)
    assert found["cause"] == "only 2 of the model's 3 layers are on the GPU, 3 were planned"
    assert "gpu_layers" in found["fix"]
    assert judge(log=log, planned=2) == "2/3 layers on CUDA0 (NVIDIA H200)"


def test_a_log_without_the_proof_is_no_proof():
    quiet = "\n".join(line for line in ON_GPU.splitlines() if "load_tensors" not in line)
    found = refusal(log=quiet)
    assert "does not say how many layers" in found["cause"]
    assert "CUDA0 (NVIDIA H200)" in found["evidence"]
    # the server has printed its start, so it is not for lack of old lines
    assert "does not say" in refusal(log=quiet, fresh=False)["cause"]


def test_a_log_that_was_rotated_away_is_said_to_be():
    assert not llama_offload.proven_by_log("all slots are idle")
    said = judge(log="all slots are idle", fresh=False)
    assert said == "CUDA0 (NVIDIA H200); the log of its start is gone, so its layers were not counted"
    assert "does not say" in refusal(log="all slots are idle")["cause"]


def test_an_accelerator_of_the_cpu_is_no_gpu():
    listing = Answer(0, "Available devices:\n  BLAS: OpenBLAS (0 MiB, 0 MiB free)\n")
    assert "finds no GPU" in refusal(log="", listing=listing)["cause"]


def test_a_gpu_filled_to_the_brim_is_known_from_the_log():
    full = Answer(134, "", "CUDA error: out of memory\n  current device: 1, in function ggml_cuda_set_device\n")
    assert judge(listing=full) == "3/3 layers on CUDA0 (NVIDIA H200)"


def test_a_gpu_filled_to_the_brim_is_no_missing_gpu_where_the_log_is_gone():
    full = Answer(134, "", "CUDA error: out of memory\n")
    assert judge(log="all slots are idle", listing=full, fresh=False).startswith("a GPU that is full; the log")
    assert "finds no GPU" in refusal(log="all slots are idle", listing=full)["cause"]


@pytest.mark.parametrize(
    ("listing", "cause", "fix"),
    [
        (Answer(1, "", "error: invalid argument: --list-devices\n"), "cannot list its devices", "verify.level: token"),
        (Answer(None, "", ""), "gave no answer in time", "nvidia-smi"),
        (
            Answer(126, 'OCI runtime exec failed: exec failed: exec: "/app/llama-server": permission denied: unknown'),
            "could not be run in the container (exit code 126)",
            "docker exec",
        ),
        (Answer(1, "", ""), "could not be run in the container (exit code 1)", "docker exec"),
        (
            Answer(0, "", "ggml_cuda_init: failed to initialize CUDA: no CUDA-capable device is detected"),
            "was given no GPU",
            "playbooks/host.yml",
        ),
    ],
)
def test_a_program_that_cannot_be_asked_is_explained(listing, cause, fix):
    found = refusal(listing=listing)
    assert cause in found["cause"]
    assert fix in found["fix"]


def test_planned_layers_are_read_back_from_the_arguments():
    assert llama_offload.planned_layers(["--model", "m", "--n-gpu-layers", "20"]) == 20
    assert llama_offload.planned_layers(["--model", "m", "--device", "none"]) is None
