"""The PDF worker where a wall of its sandbox cannot be built: a second thread runs, which the locks would not bind."""

import threading
import time

from renderers import pdf_worker

if __name__ == "__main__":
    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
    pdf_worker.main()
