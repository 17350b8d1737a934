"""Source code by the names of its files: languages, and what other people or programs put there."""

from __future__ import annotations

from pathlib import Path

LANGUAGES = {
    suffix: language
    for language, suffixes in {
        "ada": ".ada .adb .ads",
        "assembly": ".asm .s",
        "bash": ".sh .bash .zsh",
        "c": ".c .h",
        "c#": ".cs",
        "c++": ".cc .cpp .cxx .hpp .hh .hxx .inl",
        "clojure": ".clj .cljs .cljc",
        "cmake": ".cmake",
        "css": ".css .scss .sass .less",
        "cuda": ".cu .cuh",
        "dart": ".dart",
        "elixir": ".ex .exs",
        "erlang": ".erl .hrl",
        "f#": ".fs .fsx .fsi",
        "fortran": ".f .f90 .f95 .f03 .for",
        "go": ".go",
        "groovy": ".groovy .gradle",
        "haskell": ".hs .lhs",
        "html": ".html .htm .vue .svelte",
        "java": ".java",
        "javascript": ".js .mjs .cjs .jsx",
        "julia": ".jl",
        "kotlin": ".kt .kts",
        "lisp": ".lisp .el .scm .rkt",
        "lua": ".lua",
        "makefile": ".mk .mak",
        "markdown": ".md .markdown .rst",
        "matlab": ".m",
        "nix": ".nix",
        "ocaml": ".ml .mli",
        "pascal": ".pas .pp",
        "perl": ".pl .pm .t",
        "php": ".php",
        "powershell": ".ps1 .psm1",
        "protobuf": ".proto",
        "python": ".py .pyi .pyx",
        "r": ".r",
        "ruby": ".rb .rake",
        "rust": ".rs",
        "scala": ".scala .sc",
        "sql": ".sql",
        "swift": ".swift",
        "tcl": ".tcl",
        "tex": ".tex .sty .cls",
        "toml": ".toml",
        "typescript": ".ts .tsx .mts",
        "verilog": ".v .sv .vhd .vhdl",
        "vim": ".vim",
        "yaml": ".yaml .yml",
        "zig": ".zig",
    }.items()
    for suffix in suffixes.split()
}
NAMED = {"makefile": "makefile", "dockerfile": "dockerfile", "rakefile": "ruby", "cmakelists.txt": "cmake"}
VENDOR = frozenset(
    {"node_modules", "bower_components", "jspm_packages", "vendor", "vendors", "third_party", "thirdparty"}
    | {
        "third-party",
        "external",
        "externals",
        "site-packages",
        "dist-packages",
        "venv",
        "__pycache__",
        "pods",
    }
    | {"carthage", "deps", "godeps"}
)
LOCKS = frozenset(
    {"package-lock.json", "npm-shrinkwrap.json", "yarn.lock", "pnpm-lock.yaml", "bun.lock", "poetry.lock"}
    | {"pipfile.lock", "uv.lock", "cargo.lock", "gemfile.lock", "composer.lock", "go.sum", "mix.lock"}
    | {"flake.lock", "pubspec.lock", "podfile.lock"}
)


def language_of(name: str) -> str:
    """The language of a file by its name; "" for what is not known as source code."""
    path = Path(name.lower())
    return NAMED.get(path.name) or LANGUAGES.get(path.suffix, "")
