"""``python -m hepattn.data.trackml SOURCE STORE``: prepare a store."""

from hepattn.data.trackml.preparation import main

if __name__ == "__main__":
    main()
