"""SFTP: the server's side of version 3 without its I/O, and what it can serve."""

from dunnart.sftp.attributes import Attributes
from dunnart.sftp.files import File, FileSystem, OpenMode
from dunnart.sftp.local import LocalFiles
from dunnart.sftp.server import SftpServer
from dunnart.sftp.streams import serve

__all__ = ["Attributes", "File", "FileSystem", "LocalFiles", "OpenMode", "SftpServer", "serve"]
