"""Takes programs out of answers and runs their tests, in the sandbox and only when the user has asked for it."""

import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from .sandbox import Limits, check_sandbox, passes


def extract_program(prompt: str, answer: str, entry_point: str | None = None) -> str:
    """Return the program in an answer: its first block of code, or all of it.

    Args:
        prompt: the request; if the answer only continues a function that the request began, both make the program.
        answer: the model's answer.
        entry_point: name of the function that is tested.
    """
    block = re.search(r"```(?:python|py)?[ \t]*\n(.*?)(?:```|\Z)", answer, re.DOTALL)
    program = block[1] if block else answer
    continues = entry_point is not None and f"def {entry_point}(" in prompt and f"def {entry_point}(" not in program
    return prompt + program if continues else program


def run_tests(
    programs: Sequence[tuple[str, str]],
    *,
    allow_code_execution: bool,
    limits: Limits | None = None,
    workers: int = 2,
) -> list[bool]:
    """Return, for each program, whether it passes its tests.

    Args:
        programs: pairs of program and tests, both Python source.
        allow_code_execution: must be True: models' programs are run.
        limits: what each program may use.
        workers: programs run at a time.

    Raises:
        PermissionError: without `allow_code_execution`.
        SandboxUnavailable: where programs cannot be isolated.
    """
    if not allow_code_execution:
        raise PermissionError(
            "Programs that a model wrote would be run here, and nobody has allowed it. Read what that means, and pass "
            "`allow_code_execution=True` (on the command line: --allow_code_execution)."
        )
    check_sandbox()
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(lambda pair: passes(f"{pair[0]}\n\n{pair[1]}\n", limits), programs))
