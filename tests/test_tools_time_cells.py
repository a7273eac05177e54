"""The tool that says how long each cell of a chapter takes."""

import os
import subprocess
import sys
from pathlib import Path

TOOL = Path(__file__).parent.parent / "tools" / "time_cells.py"
PAGE = """---
file_format: mystnb
kernelspec:
  name: python3
---

# A page

```{code-cell} python
import time
time.sleep(0.3)
```

Between them.

```{code-cell} python
import os
assert os.environ["TILEBOOK_BUILD"] and os.environ["TILEBOOK_LIVE"]
assert os.environ["TRITON_CACHE_DIR"].endswith("triton")
quick = 1
```
"""


def test_the_slowest_cells_are_named_first(tmp_path):
    (tmp_path / "page.md").write_text(PAGE)
    run = f"""
import sys
from pathlib import Path

sys.path.insert(0, {str(TOOL.parent)!r})
import time_cells

time_cells.CHAPTERS = Path({str(tmp_path)!r})
sys.argv[1:] = ["--cold", "--most", "1"]
sys.exit(time_cells.main())
"""
    done = subprocess.run(
        [sys.executable, "-c", run],
        capture_output=True,
        text=True,
        env=os.environ | {"IPYTHONDIR": str(tmp_path / "ipython")},
    )
    assert done.returncode == 0, done.stderr
    first, slowest = done.stdout.splitlines()
    assert first.startswith("page: ")
    assert "time.sleep(0.3)" in slowest
    assert 0.3 <= float(slowest.split()[0]) < 5
