"""python -m quantjax.methods prints the table of methods."""

from quantjax.methods import to_markdown

if __name__ == "__main__":
    print(to_markdown(), end="")
