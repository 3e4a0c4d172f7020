"""Terminal applications of other frameworks, one for each visitor, all in this process.

    from dunnart.apps.prompt_toolkit import prompt_toolkit_handler    # pip install "dunnart[prompt-toolkit]"
    from dunnart.apps.textual import textual_handler                  # pip install "dunnart[textual]"

Both give handlers for `dunnart.Server`. The frameworks are loaded by these imports and not before.
"""
