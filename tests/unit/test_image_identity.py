"""Whether two engines have the same image, and which layers one can do without."""

from __future__ import annotations

from ansible.module_utils.llmfleet import image_identity
from ansible.module_utils.llmfleet.image_identity import Image, droppable_layers, shared_prefix, spared_layers
from hypothesis import given
from hypothesis import strategies as st

LAYERS = tuple(f"sha256:{digit * 64}" for digit in "0123456789")
ID, OTHER = f"sha256:{'a' * 64}", f"sha256:{'b' * 64}"
INSPECTED = {
    "Id": ID,
    "Architecture": "amd64",
    "Os": "linux",
    "RootFS": {"Type": "layers", "Layers": list(LAYERS[:2])},
    "Config": {"Hostname": "", "Cmd": None, "Entrypoint": ["/app/llama-server"], "Labels": {"b": "1", "a": "2"}},
}
CONFIG = {
    "architecture": "amd64",
    "os": "linux",
    "rootfs": {"type": "layers", "diff_ids": list(LAYERS[:2])},
    "config": {"Entrypoint": ["/app/llama-server"], "Labels": {"a": "2", "b": "1"}, "Volumes": {}},
}


def test_engines_that_say_the_same_differently_have_the_same_image() -> None:
    inspected = image_identity.from_inspect("a:1", INSPECTED)
    inside = image_identity.from_config("a:1", OTHER, CONFIG)
    assert inspected.same(inside)
    assert inspected.settings


def test_other_settings_make_another_image() -> None:
    inspected = image_identity.from_inspect("a:1", INSPECTED)
    changed = {**CONFIG, "config": {"Entrypoint": ["/bin/sh"], "Labels": {"a": "2", "b": "1"}}}
    assert not inspected.same(image_identity.from_config("a:1", OTHER, changed))


def test_other_layers_make_another_image() -> None:
    assert not Image("a:1", ID, LAYERS[:2]).same(Image("a:1", OTHER, LAYERS[:3]))
    assert not Image("a:1", ID, ()).same(Image("a:1", OTHER, ()))
    assert Image("a:1", ID, ()).same(Image("a:1", ID, ()))


def test_data_of_a_result_is_read_back() -> None:
    image = Image("a:1", ID, LAYERS[:2], "0123")
    assert image_identity.from_data(image.as_data()) == image


def test_a_layer_counts_only_on_the_same_ground() -> None:
    mine = LAYERS[:3]
    assert shared_prefix(mine, [LAYERS[1:3], (LAYERS[0], LAYERS[2])]) == 1
    assert shared_prefix(mine, [mine]) == 3
    assert shared_prefix(mine, []) == 0


def test_a_layer_that_one_of_two_images_needs_is_sent() -> None:
    first, second = Image("a:1", ID, LAYERS[:2]), Image("b:1", OTHER, (LAYERS[3], LAYERS[1]))
    # the engine has the first image's layers, but not the second one's ground below the shared layer
    assert spared_layers([first, second], [LAYERS[:2]]) == {LAYERS[0]}


def test_only_layers_with_nothing_else_below_may_be_left_out() -> None:
    image = Image("a:1", ID, LAYERS[:4])
    assert droppable_layers([image], {LAYERS[0], LAYERS[1], LAYERS[3]}) == {LAYERS[0], LAYERS[1]}
    assert droppable_layers([image], {LAYERS[1]}) == set()


stacks = st.lists(st.sampled_from(LAYERS[:4]), unique=True, max_size=4).map(tuple)


@given(st.lists(stacks, min_size=1, max_size=3), st.lists(stacks, max_size=4))
def test_an_engine_can_always_put_together_what_it_was_sent(
    sent: list[tuple[str, ...]], there: list[tuple[str, ...]]
) -> None:
    """The engine's rule: a layer is there if some image has it and everything below it in the same places."""
    images = [Image(f"a:{number}", ID, stack) for number, stack in enumerate(sent)]
    spared = spared_layers(images, there)
    chains = {stack[: height + 1] for stack in there for height in range(len(stack))}
    for image in images:
        for height, layer in enumerate(image.layers):
            assert layer not in spared or image.layers[: height + 1] in chains
