"""The command line: `ntkdiag COMMAND ...`. It parses, calls the other rooms and prints; it computes nothing itself.

Exit codes: 0 done; 1 a measurement or an audit failed; 2 bad input, with one line on stderr; 130 interrupted by Ctrl-C; 143
terminated by SIGTERM. torch is imported only by a command that needs it, so that help and errors of usage are immediate.
"""

from __future__ import annotations

from collections.abc import Sequence

DONE, FAILED, BAD_INPUT, INTERRUPTED, TERMINATED = 0, 1, 2, 130, 143
# Most characters of an error: errors of usage repeat whatever was typed.
_LONGEST = 3000
_LESS_MEMORY = "fewer samples, or less at a time by --memory, need less"

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: What follows `ntkdiag`; by default the arguments of the process.

    Returns:
        The exit code.
    """
    import typer

    from ntkdiag.cli.app import command_line
    from ntkdiag.cli.inputs.launched import first_alone_speaks, is_first
    from ntkdiag.cli.output.messages import escaping, note
    from ntkdiag.errors import InputError, MeasurementError
    from ntkdiag.signals import sigterm_as_interrupt

    # typer has no public name for the root of its usage errors (NoSuchOption, MissingParameter, ...).
    usage_error: type[Exception] = typer.BadParameter.__mro__[1]
    with first_alone_speaks(), escaping(), sigterm_as_interrupt() as terminated:
        try:
            code = command_line().main(args=arguments, prog_name="ntkdiag", standalone_mode=False)
        except InputError as error:
            code = _fail(str(error), BAD_INPUT)
        except MeasurementError as error:
            code = _fail(str(error), FAILED)
        except usage_error as error:
            code = _fail(error.format_message(), BAD_INPUT)  # type: ignore[attr-defined]
        except OSError as error:  # a full disk, a folder without permission, a name that is too long
            where = f"{error.filename}: " if error.filename is not None else ""
            code = _fail(f"{where}{error.strerror or error}", BAD_INPUT)
        except (KeyboardInterrupt, typer.Abort):
            code = INTERRUPTED
        except (MemoryError, RuntimeError) as error:
            from ntkdiag.kernel.streaming.memory import is_out_of_memory

            if not is_out_of_memory(error):
                raise
            code = _fail(
                f"memory ran out: {str(error) or 'no more could be allocated'}; {_LESS_MEMORY}", BAD_INPUT
            )
        except SystemExit as stop:  # typer raises it when the reader of a pipe is gone, as with `| head`
            code = FAILED if stop.code else DONE
    if code == INTERRUPTED:
        if is_first():
            note("interrupted")
        code = TERMINATED if terminated() else INTERRUPTED
    return int(code or DONE)


def _fail(text: str, code: int) -> int:
    """Print an error as exactly one line, whatever line breaks a library put into its message; return `code`."""
    from ntkdiag.cli.output.messages import note

    line = " ".join(text.split())
    note("error: " + (line if len(line) <= _LONGEST else f"{line[:_LONGEST]} …"))
    return code
