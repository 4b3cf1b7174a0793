"""Broken and hostile inputs through the public commands: `python -m tests.fuzz --cases 500 --seed 0`.

values      values that no file should hold, as text of JSON and YAML
sandbox     a folder in which every command works
mutations   the kinds of cases: each breaks one thing in the sandbox and names the commands that meet it
process     a command in a process of its own, with a limit of time and memory
verdict     what is wrong with how a command took it
"""
