"""The configuration value: what `serve`'s arguments build, `--config FILE` loads and `--print-config` prints.

There is no second way to start a target. `model` has the value, `store_words` the grammar of stores and filters,
`document` loading and printing, `arguments` the way from command-line words, `host` what is stable per machine.
"""
