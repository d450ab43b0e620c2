"""``python -m vggfeat``, as ``torchrun -m vggfeat`` needs it."""

from vggfeat.cli import main

if __name__ == "__main__":
    main()
