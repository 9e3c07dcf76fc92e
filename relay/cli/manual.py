"""The manual page and the completions of shells, made from the commands themselves; no I/O."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import EnumType
from pathlib import Path
from shlex import quote
from typing import Any, Final

INTRODUCTION: Final = "push notification relay for ActiveSync mailboxes"
_KINDS: Final = {Path: "PATH", int: "NUMBER", float: "NUMBER"}
_MARKUP: Final = re.compile(r"`([^`]*)`")


@dataclass(frozen=True, slots=True)
class Option:
    """An option of a command."""

    names: tuple[str, ...]
    """As typed: --config, -c."""
    help: str
    value: str
    """What follows it, e.g. PATH; empty for a flag."""
    choices: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Entry:
    """A command, or a group of commands."""

    path: tuple[str, ...]
    """The words that run it, from "relay" on."""
    help: str
    arguments: tuple[tuple[str, str], ...]
    """As typed, e.g. [FOLDER], and their help."""
    options: tuple[Option, ...]
    children: tuple["Entry", ...]
    more: tuple[str, ...] = ()
    """The paragraphs after the first one, which is `help`."""

    @property
    def place(self) -> str:
        """The words that run it, as one text."""
        return " ".join(self.path)

    def all(self) -> Iterator["Entry"]:
        """Return this entry and all below it."""
        yield self
        for child in self.children:
            yield from child.all()


def tree(command: Any, *path: str) -> Entry:
    """Return what a command of typer, as `typer.main.get_command` gives it, says of itself and of those below it."""
    arguments, options = [], []
    for param in command.params:
        text = " ".join((getattr(param, "help", None) or "").split())
        if param.param_type_name == "argument":
            name = param.name.upper()
            shown = name if param.required else f"[{name}]"
            arguments.append((f"{shown}..." if param.nargs < 0 else shown, text))
        elif not param.hidden:
            flag = bool(param.is_flag)
            kind = param.type_descriptor.annotation
            members: Any = kind if isinstance(kind, EnumType) else ()
            choices = tuple(str(each.value) for each in members)
            value = "" if flag else "|".join(choices) or _KINDS.get(kind, "TEXT")
            options.append(Option((*param.opts, *param.secondary_opts), text, value, choices))
    children = [
        tree(child, *path, name) for name, child in sorted(getattr(command, "commands", {}).items()) if not child.hidden
    ]
    paragraphs = (command.help or "").partition("\f")[0].split("\n\n")
    words, *more = (" ".join(paragraph.split()) for paragraph in paragraphs)
    return Entry(path, words, tuple(arguments), tuple(options), tuple(children), tuple(more))


def man_page(root: Entry, version: str) -> str:
    """Return the manual page, as groff's man macros have it."""
    lines = [
        f'.TH {root.place.upper()} 1 "" "push-relay {_roff(version)}" "Push relay"',
        ".SH NAME",
        f"{root.place} \\- {INTRODUCTION}",
        ".SH SYNOPSIS",
        f".B {root.place}\n.I COMMAND\n[\\fIOPTION\\fR]...",
        ".SH DESCRIPTION",
        _roff(root.help),
        ".SH COMMANDS",
    ]
    for entry in root.all():
        if not entry.children:
            usage = "".join(f" {_roff(name)}" for name, _ in entry.arguments)
            lines += [f".SS {_roff(entry.place)}{usage}", _roff(entry.help)]
            lines += [f".PP\n{_roff(paragraph)}" for paragraph in entry.more if paragraph]
        elif entry.options:
            lines += [f".SS {_roff(entry.place)}", _roff(entry.help)]
        else:
            continue
        for name, text in entry.arguments:
            lines += [".TP", f"\\fI{_roff(name)}\\fR", _roff(text)]
        for option in entry.options:
            value = f" \\fI{_roff(option.value)}\\fR" if option.value else ""
            lines += [".TP", ", ".join(f"\\fB{_roff(name)}\\fR" for name in option.names) + value, _roff(option.help)]
    lines += [
        ".SH EXIT STATUS",
        "0: all is well. 1: it failed. 2: configuration or arguments are faulty.",
        "\\fBrelay check\\-health\\fR has its own.",
        ".SH FILES",
        ".TP\n.I /etc/push-relay/relay.toml\nThe settings; \\fBrelay init\\fR writes them.",
        ".TP\n.I /var/lib/push-relay\nThe embedded database, keys and the egress log.",
    ]
    return "\n".join(line for line in lines if line) + "\n"


def bash(root: Entry) -> str:
    """Return the completion of bash."""
    lines = [
        f"# Completion of {root.place} for bash.",
        f"_{root.place}() {{",
        "    local current=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} place="
        + root.place
        + " word words=",
        '    for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do',
        '        case "$place $word" in',
        f'            {_places(root)}) place="$place $word" ;;',
        "        esac",
        "    done",
        '    case "$place $before" in',
        *(f"        {quote(place)}) words={quote(' '.join(choices))} ;;" for place, choices in _chosen(root)),
        '        *) case "$place" in',
        *(f"            {quote(entry.place)}) words={quote(' '.join(_words(entry)))} ;;" for entry in root.all()),
        "        esac ;;",
        "    esac",
        '    COMPREPLY=($(compgen -W "$words" -- "$current"))',
        "}",
        f"complete -o bashdefault -o default -F _{root.place} {root.place}",
    ]
    return "\n".join(lines) + "\n"


def zsh(root: Entry) -> str:
    """Return the completion of zsh."""
    lines = [
        f"#compdef {root.place}",
        f"local place={root.place} word",
        "local -a found",
        'for word in "${(@)words[2,CURRENT-1]}"; do',
        '    case "$place $word" in',
        f'        ({_places(root)}) place="$place $word" ;;',
        "    esac",
        "done",
        'case "$place ${words[CURRENT-1]}" in',
        *(
            f"    ({quote(place)}) compadd -- {' '.join(map(quote, choices))}; return ;;"
            for place, choices in _chosen(root)
        ),
        "esac",
        'case "$place" in',
    ]
    for entry in root.all():
        described = [(child.path[-1], child.help) for child in entry.children]
        described += [(name, option.help) for option in entry.options for name in option.names]
        pairs = " ".join(quote(f"{name}:{text}" if text else name) for name, text in described)
        lines.append(f"    ({quote(entry.place)}) found=({pairs}) ;;")
    lines += ["esac", f"_describe {root.place} found", "_files"]
    return "\n".join(lines) + "\n"


def fish(root: Entry) -> str:
    """Return the completion of fish."""
    name = root.place
    lines = [
        f"# Completion of {name} for fish.",
        f"function __{name}_at",
        f"    set -l place {name}",
        "    for word in (commandline -opc)[2..]",
        '        switch "$place $word"',
        f"            case {_places(root).replace('|', ' ')}",
        '                set place "$place $word"',
        "        end",
        "    end",
        '    test "$place" = "$argv"',
        "end",
    ]
    for entry in root.all():
        begin = f"complete -c {name} -n {_fish(f'__{name}_at {entry.place}')}"
        lines += [f"{begin} -f -a {child.path[-1]} -d {_fish(child.help)}" for child in entry.children]
        for option in entry.options:
            names = "".join(f" -{'l' if each.startswith('--') else 's'} {each.lstrip('-')}" for each in option.names)
            value = f" -x -a {_fish(' '.join(option.choices))}" if option.choices else " -r" if option.value else ""
            lines.append(f"{begin}{names}{value} -d {_fish(option.help)}")
    return "\n".join(lines) + "\n"


def _places(root: Entry) -> str:
    """Return the words of every entry but the root, as alternatives of a pattern."""
    return "|".join(quote(entry.place) for entry in root.all() if entry is not root)


def _chosen(root: Entry) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Return the options with a few possible values: the words up to the option, and the values."""
    for entry in root.all():
        for option in entry.options:
            if option.choices:
                for name in option.names:
                    yield f"{entry.place} {name}", option.choices


def _words(entry: Entry) -> list[str]:
    return [child.path[-1] for child in entry.children] + [name for each in entry.options for name in each.names]


def _roff(text: str) -> str:
    """Return a text for groff: hyphens and backslashes as they are, what is between backquotes bold."""
    plain = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq")
    marked = _MARKUP.sub(r"\\fB\1\\fR", plain)
    return f"\\&{marked}" if marked.startswith((".", "'")) else marked


def _fish(text: str) -> str:
    """Return a text as one word of fish, whose single quotes know two escapes."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
