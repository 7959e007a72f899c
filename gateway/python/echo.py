import strowger, sys
echo = strowger.connect(sys.argv[1], "/echo/1")
echo.send(b"hello")
print(echo.recv(timeout=10).decode())
