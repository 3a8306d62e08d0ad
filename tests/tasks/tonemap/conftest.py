import sys
from pathlib import Path

# frames.py lies beside the tests and belongs to no package
sys.path.insert(0, str(Path(__file__).parent))
