"""
Talk to a dialogue model in the terminal: several replies to every turn, the first of which counts as said.

    python examples/chat.py outputs/dialog --num_replies 5

The model is a directory or a name on the Hub. An empty line asks for other replies to the same turn; `/2` says the second one in
place of the first, `/act NAME` asks for an act from then on (`/act` for any), `/reset` begins anew, `/quit`, Ctrl-D or Ctrl-C ends.
Of a conversation that is longer than the model holds, the latest turns are read.
"""

from commands import run

if __name__ == "__main__":
    run("chat")
