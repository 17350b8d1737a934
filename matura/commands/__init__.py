"""What the verbs of the command line do; `matura.cli` names them and imports these when they are called."""
